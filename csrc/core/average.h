// Averages of the weights: the share that the new weight has in them.
#pragma once

#include "core/portable.h"

namespace clr {

// The share in an exponential moving average of n earlier weights. With a warm-up, the decay rises from 0.1.
CLR_INLINE double ema_weight(double decay, bool warm_up, uint64_t n) {
  const double count = static_cast<double>(n);
  const double warm = (1.0 + count) / (10.0 + count);
  return 1.0 - (warm_up && warm < decay ? warm : decay);
}

// The share in the mean of n earlier weights and this one.
CLR_INLINE double mean_weight(uint64_t n) { return 1.0 / (static_cast<double>(n) + 1.0); }

}  // namespace clr
