// Schedule values in bulk.
#pragma once

#include "cpu/kernels.h"

namespace clr {

// The first of `count` values that no optimizer may be given (lr negative or not finite, momentum outside [0, 1] where
// the policy has one), or -1.
int64_t first_invalid(const Policy& policy, const double* lr, const double* momentum, int64_t count);

}  // namespace clr
