// THE update: SGD with momentum, in the order of operations of torch.optim.SGD. Written once, for any lane.
//
// A lane is a number or a pack of numbers of one floating type with `-x`, `a * b` and `fused(a, b, c)` = a * b + c
// (one rounding where the instruction set has fma; two on the baseline, as in torch's own baseline build).
#pragma once

#include "core/portable.h"

namespace clr {

// What one update of one parameter depends on, formed in double and cast once. `Real` is the type of arithmetic.
template <class Real>
struct SgdCoefficients {
  Real minus_lr, momentum, one_minus_dampening, weight_decay;
  bool maximize, nesterov;
  bool has_buffer;  // false: momentum plays no part, the buffer is neither read nor written
  bool first;       // the buffer holds nothing yet
};

// p, m <- the parameter and its momentum buffer after one update with gradient g.
template <class Lane, class Real>
CLR_INLINE void update(const SgdCoefficients<Real>& c, Lane& p, Lane g, Lane& m) {
  if (c.maximize) g = -g;
  if (c.weight_decay != 0) g = fused(Lane::all(c.weight_decay), p, g);
  Lane d = g;
  if (c.has_buffer) {
    m = c.first ? g : fused(Lane::all(c.one_minus_dampening), g, Lane::all(c.momentum) * m);
    d = c.nesterov ? fused(Lane::all(c.momentum), m, g) : m;
  }
  p = fused(Lane::all(c.minus_lr), d, p);
}

}  // namespace clr
