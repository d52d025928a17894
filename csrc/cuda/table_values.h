// Values that both kernels derive from their tables.
#pragma once

#include "cuda/tables.h"

namespace clr {
namespace {

// The scale of this step's gradients.
__device__ __forceinline__ double scale_of(const DeviceStep& step) {
  return step.grad_scale != nullptr ? static_cast<float>(1.0 / static_cast<double>(*step.grad_scale))
                                    : step.gradients.scale;
}

// The elements of a chunk.
__device__ __forceinline__ int64_t begin_of(DeviceChunk chunk) { return chunk.part * kDeviceChunk; }

__device__ __forceinline__ int64_t end_of(DeviceChunk chunk, const Slot& slot) {
  const int64_t end = begin_of(chunk) + kDeviceChunk;
  return end < slot.size ? end : slot.size;
}

}  // namespace
}  // namespace clr
