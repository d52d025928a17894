// Averages of the weights: how much of the new weight comes in.
#pragma once

#include "core/portable.h"

namespace clr {

// In an exponential moving average that has taken in n weights before. The decay warms up from 0.1, if it does.
CLR_INLINE double ema_weight(double decay, bool warm_up, uint64_t n) {
  const double count = static_cast<double>(n);
  const double warm = (1.0 + count) / (10.0 + count);
  return 1.0 - (warm_up && warm < decay ? warm : decay);
}

// In the mean of n weights before and this one.
CLR_INLINE double mean_weight(uint64_t n) { return 1.0 / (static_cast<double>(n) + 1.0); }

}  // namespace clr
