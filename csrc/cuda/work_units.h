// How the blocks of a launch share its work: each takes the next unit as soon as it is done with one, and the last
// block works on after all others.
#pragma once

#include "cuda/tables.h"

namespace clr {
namespace {

// Calls `work_on(unit)` for the units that this block gets. Blocks begin with the units of their own numbers and draw
// the others, one ahead, so that nobody waits for the answer. All threads of a block do this together.
template <class WorkOn>
__device__ __forceinline__ void for_units(DeviceState& state, uint32_t unit_count, WorkOn work_on) {
  __shared__ uint32_t drawn[2];
  uint32_t unit = blockIdx.x;
  for (int turn = 0; unit < unit_count; turn ^= 1) {
    if (threadIdx.x == 0) drawn[turn] = gridDim.x + atomicAdd(&state.next_unit, 1u);
    work_on(unit);
    __syncthreads();
    unit = drawn[turn];
  }
}

// True if this is the last block of the launch to call this. It then sees everything that the other blocks have
// written, and must set the ticket back to 0. The barrier gathers what the block has written, and the fences of one
// thread carry it on: what orders memory is this thread's atomic.
__device__ __forceinline__ bool is_last_block(uint32_t* ticket) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  return last;
}

}  // namespace
}  // namespace clr
