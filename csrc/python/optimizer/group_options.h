// The options of a parameter group beyond torch's SGD: averages, layer-wise rates, 16-bit weights and buffers.
#pragma once

#include <cstdint>
#include <optional>

#include "core/progress.h"
#include "python/torch/group_dict.h"

namespace clr {

// How a group's tensors are kept. GroupSettings holds the numbers.
struct GroupOptions {
  Storage storage = Storage::nearest;
  std::optional<DType> momentum_dtype;
  std::uint64_t trust_min_ndim = 0;

  // Returns the dtype of the momentum buffer of a parameter of this dtype.
  DType buffer_dtype(DType parameter) const;

  // Throws ValueError if parameter `index` of group `group`, which has this dtype, cannot be kept as the options say.
  void require_legal(DType parameter, std::size_t group, std::size_t index) const;
};

// Reads and checks all options of a group beyond torch's SGD. Writes their numbers into `settings` and the counters
// into `progress`.
GroupOptions read_options(const GroupReader& group, GroupSettings& settings, GroupProgress& progress);

// True if a group asks for more than an update.
inline bool has_options(const GroupOptions& options, const GroupSettings& settings) {
  return options.storage != Storage::nearest || options.momentum_dtype || settings.averaging != Averaging::none ||
         settings.trust_coefficient != 0.0;
}

}  // namespace clr
