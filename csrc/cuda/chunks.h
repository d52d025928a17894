// How the work of a launch is cut into chunks.
#pragma once

#include <vector>

#include "cuda/tables.h"

namespace clr {

struct Chunks {
  std::vector<DeviceChunk> by_number, by_size;  // as DeviceWork has them
  std::vector<uint64_t> first;                  // for each slot, the number of chunks of the slots before it
  uint32_t shared_count = 0;                    // the chunks of kSharedChunk elements and more: the first of by_size
};

// Cuts all slots into chunks. Keeps the memory of `chunks`.
void cut_into_chunks(const std::vector<Slot>& slots, Chunks& chunks);

}  // namespace clr
