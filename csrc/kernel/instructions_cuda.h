// Instructions that C++ has no words for. A NaN becomes the GPU's own.
#pragma once

#include <stdint.h>

namespace clr {
namespace {

__device__ __forceinline__ float float_of_half(uint16_t half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}

__device__ __forceinline__ uint16_t half_of_float(float value) {
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}

// Returns the upper halves of two words, those of `low` below those of `high`.
__device__ __forceinline__ uint32_t upper_halves(uint32_t low, uint32_t high) { return __byte_perm(low, high, 0x7632); }

}  // namespace
}  // namespace clr
