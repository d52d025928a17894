#include "cuda/chunks.h"

#include <algorithm>

namespace clr {

void cut_into_chunks(const std::vector<Slot>& slots, Chunks& chunks) {
  chunks.by_number.clear();
  chunks.first.clear();
  for (const Slot& slot : slots) {
    chunks.first.push_back(chunks.by_number.size());
    for (uint64_t part = 0; part < norm_chunks(slot.size); ++part) {
      chunks.by_number.push_back({static_cast<uint32_t>(chunks.first.size() - 1), static_cast<uint32_t>(part),
                                  static_cast<uint32_t>(chunks.by_number.size())});
    }
  }
  const auto size_of_chunk = [&](DeviceChunk chunk) {
    return std::min(kDeviceChunk, slots[chunk.slot].size - chunk.part * kDeviceChunk);
  };
  chunks.by_size = chunks.by_number;
  std::stable_sort(chunks.by_size.begin(), chunks.by_size.end(),
                   [&](DeviceChunk a, DeviceChunk b) { return size_of_chunk(a) > size_of_chunk(b); });
  const auto first_small = std::partition_point(chunks.by_size.begin(), chunks.by_size.end(), [&](DeviceChunk chunk) {
    return size_of_chunk(chunk) >= kSharedChunk;
  });
  chunks.shared_count = static_cast<uint32_t>(first_small - chunks.by_size.begin());
}

}  // namespace clr
