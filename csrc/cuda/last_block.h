// How the last block of a launch works on after all others.
#pragma once

#include "core/portable.h"

namespace clr {
namespace {

// True if this is the last block of the launch to call this. It then sees everything that the other blocks have
// written, and must set the ticket back to 0.
__device__ __forceinline__ bool is_last_block(uint32_t* ticket) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(ticket, 1u) == gridDim.x - 1;
  __syncthreads();
  __threadfence();
  return last;
}

}  // namespace
}  // namespace clr
