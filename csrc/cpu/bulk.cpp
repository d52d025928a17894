#include "cpu/bulk.h"

namespace clr {

int64_t first_invalid(const Policy& policy, const double* lr, const double* momentum, int64_t count) {
  if (!may_leave_bounds(policy)) return -1;
  const bool has_momentum = policy.base_momentum == policy.base_momentum;
  for (int64_t i = 0; i < count; ++i) {
    if (!is_valid_lr(lr[i]) || (has_momentum && !is_valid_momentum(momentum[i]))) return i;
  }
  return -1;
}

}  // namespace clr
