// 16-bit floats for lanes of one number: conversions that round to nearest even. A NaN becomes the same NaN that the
// vector instruction sets store.
#pragma once

#include "kernel/lanes.h"
#if defined(__CUDA_ARCH__)
#include "kernel/instructions_cuda.h"
#endif

namespace clr {
namespace {

CLR_INLINE float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

CLR_INLINE uint32_t bits_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

CLR_INLINE float widened(float x) { return x; }
CLR_INLINE void narrow(float x, float& to) { to = x; }

CLR_INLINE float widened(Bfloat16 x) { return float_of_bits(static_cast<uint32_t>(x) << 16); }

// Returns x rounded to bfloat16 in the upper half of the result, and anything in the lower half.
CLR_INLINE uint32_t bits_to_bfloat16(float x) {
  const uint32_t bits = bits_of_float(x);
  return x != x ? 0x7fc00000u : bits + 0x7fffu + ((bits >> 16) & 1u);
}

CLR_INLINE Bfloat16 rounded_to_bfloat16(float x) { return static_cast<Bfloat16>(bits_to_bfloat16(x) >> 16); }

CLR_INLINE void narrow(float x, Bfloat16& to) { to = rounded_to_bfloat16(x); }

CLR_INLINE float widened(Float16 x) {
  const uint32_t sign = (static_cast<uint32_t>(x) & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(x) & 0x7fffu;
#if defined(__CUDA_ARCH__)
  return magnitude > 0x7c00u ? float_of_bits(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13))
                             : float_of_half(static_cast<uint16_t>(x));
#else
  if (magnitude >= 0x7c00u) return float_of_bits(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  // Below 2^-14 the value is an integer multiple of 2^-24; above, the exponent moves from bias 15 to 127.
  const float value =
      magnitude < 0x400u ? static_cast<float>(magnitude) * 0x1p-24f : float_of_bits((magnitude << 13) + (112u << 23));
  return float_of_bits(sign | bits_of_float(value));
#endif
}

CLR_INLINE Float16 rounded_to_float16(float x) {
  const uint32_t sign = (bits_of_float(x) >> 16) & 0x8000u;
#if defined(__CUDA_ARCH__)
  return static_cast<Float16>(x != x ? sign | 0x7e00u : half_of_float(x));
#else
  const uint32_t magnitude = bits_of_float(x) & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<Float16>(sign | 0x7e00u);
  if (magnitude >= 0x47800000u) return static_cast<Float16>(sign | 0x7c00u);  // 2^16 and above
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 1/2 leaves the integer multiple of 2^-24 in the low bits
    return static_cast<Float16>(sign | (bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u));
  }
  const uint32_t rebased = magnitude - (112u << 23);
  return static_cast<Float16>(sign | ((rebased + 0xfffu + ((rebased >> 13) & 1u)) >> 13));
#endif
}

CLR_INLINE void narrow(float x, Float16& to) { to = rounded_to_float16(x); }

}  // namespace
}  // namespace clr
