// What the pass over gradients has found, on its way to other processes and back.
#pragma once

#include "cpu/norm.h"

namespace clr {

// Writes every number of plan.shared.
void put_numbers(const StepPlan& plan, Norms& norms);

// Puts what all processes have found together into the place of what this one has found. Throws std::runtime_error if
// one of them refuses the step.
void take_numbers(const SharedNumbers& shared, Norms& norms);

}  // namespace clr
