// What the pass over gradients finds before the first weight moves.
#pragma once

#include <vector>

#include "core/norm.h"

namespace clr {

// The lengths of a slot's parameter and gradient, within 0.5 ulp and a little (core/norm.h).
struct SlotNorms {
  double parameter, gradient;
};

struct Found {
  NormPart total;                // of all gradients
  std::vector<SlotNorms> slots;  // one a slot; zeros unless the slot is trusted and has a gradient
  std::vector<double> squares;   // the sum of each slot's gradient, if the plan is shared
};

}  // namespace clr
