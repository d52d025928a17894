// The only update of this project: SGD with momentum in the order of operations of torch.optim.SGD, with the operations
// before and after it, written once for any lane.
//
// A lane is a number or a pack of numbers of one floating type with `-x`, `a + b`, `a - b`, `a * b`, limited(a, limit)
// and `fused(a, b, c)` = a * b + c (one rounding where the instruction set has fma; two on the baseline, as in torch's
// own baseline build).
#pragma once

#include "core/portable.h"

namespace clr {

// The coefficients of one update of one parameter, formed in double and cast once. `Real` is the type of arithmetic.
template <class Real>
struct SgdCoefficients {
  Real minus_lr, momentum, one_minus_dampening, weight_decay, trust_ratio;
  bool maximize, nesterov;
  bool has_buffer;  // false: momentum plays no part, the buffer is neither read nor written
  bool first;       // the buffer holds nothing yet

  CLR_INLINE_MEMBER bool decays() const { return weight_decay != 0; }
  CLR_INLINE_MEMBER bool trusts() const { return trust_ratio != 1; }
};

// The coefficients of an update with momentum, of a kind that the compiler knows.
template <class Real, bool is_nesterov, bool has_decay>
struct SteadyCoefficients {
  Real minus_lr, momentum, one_minus_dampening, weight_decay;
  static constexpr Real trust_ratio = 1;
  static constexpr bool maximize = false, nesterov = is_nesterov, has_buffer = true, first = false;

  CLR_INLINE_MEMBER explicit SteadyCoefficients(const SgdCoefficients<Real>& c)
      : minus_lr(c.minus_lr),
        momentum(c.momentum),
        one_minus_dampening(c.one_minus_dampening),
        weight_decay(c.weight_decay) {}
  CLR_INLINE_MEMBER static constexpr bool decays() { return has_decay; }
  CLR_INLINE_MEMBER static constexpr bool trusts() { return false; }
};

// Replaces p and m by the parameter and its momentum buffer after one update with gradient g.
template <class Lane, class Coefficients>
CLR_INLINE void update(const Coefficients& c, Lane& p, Lane g, Lane& m) {
  if (c.maximize) g = -g;
  if (c.decays()) g = fused(Lane::all(c.weight_decay), p, g);
  if (c.trusts()) g = Lane::all(c.trust_ratio) * g;
  Lane d = g;
  if (c.has_buffer) {
    m = c.first ? g : fused(Lane::all(c.one_minus_dampening), g, Lane::all(c.momentum) * m);
    d = c.nesterov ? fused(Lane::all(c.momentum), m, g) : m;
  }
  p = fused(Lane::all(c.minus_lr), d, p);
}

// The operations on gradients before the update: they are unscaled, then clipped by norm (a coefficient) or by value (a
// limit, which may have become 0 as a Real). Two products, as torch's GradScaler and clip_grad_norm_ make them in two
// passes.
template <class Real>
struct GradientCoefficients {
  Real scale, clip_coefficient, limit;
  bool limits;
};

template <class Lane, class Real>
CLR_INLINE Lane unscaled(const GradientCoefficients<Real>& c, Lane g) {
  return c.scale != 1 ? Lane::all(c.scale) * g : g;
}

template <class Lane, class Real>
CLR_INLINE Lane clipped(const GradientCoefficients<Real>& c, Lane g) {
  if (c.clip_coefficient != 1) g = Lane::all(c.clip_coefficient) * g;
  return c.limits ? limited(g, Lane::all(c.limit)) : g;
}

// Returns the average a after parameter p has come in with weight w, as torch.lerp(a, p, w).
template <class Lane, class Real>
CLR_INLINE Lane averaged(Real w, Lane a, Lane p) {
  return w < static_cast<Real>(0.5) ? fused(Lane::all(w), p - a, a) : fused(Lane::all(-(1 - w)), p - a, p);
}

}  // namespace clr
