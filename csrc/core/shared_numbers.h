// Processes that hold parts of one model add up a list of doubles, in which each of them writes what it has found
// before the first weight moves. This file says what stands where in the list.
#pragma once

#include "core/norm.h"

namespace clr {

// The first numbers count processes: those that found an infinity or a NaN, those that refuse the step, those that do
// more than make state.
enum : uint32_t { kNonfinite, kRefused, kUpdates, kFlagCount };

// The places of a slot's numbers in the list. No place is 0.
struct SharedPlaces {
  uint32_t sum;    // of the sum that the squares of its gradient go into; 0 where another process counts the slot
  uint32_t ratio;  // of the squares of its whole parameter, which those of the gradient follow; 0 if it has none
};

// Returns the sum of the squares of all gradients. `sums`: the places of its parts.
CLR_INLINE DoubleDouble total_of(const double* numbers, const uint32_t* sums, uint64_t count) {
  DoubleDouble total = {0.0, 0.0};
  for (uint64_t i = 0; i < count; ++i) total = grown(total, DoubleDouble{numbers[sums[i]], 0.0});
  return settled(total);
}

}  // namespace clr
