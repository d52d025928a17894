// Lanes of AArch64 Advanced SIMD, which has fma and half-precision conversions on every processor.
#pragma once

#include <arm_neon.h>

#include "kernel/lanes.h"

namespace clr {
namespace {

struct F32 {
  using Real = float;
  static constexpr int width = 4;
  float32x4_t x;
  static F32 all(float x) { return {vdupq_n_f32(x)}; }
};

struct F64 {
  using Real = double;
  static constexpr int width = 2;
  float64x2_t x;
  static F64 all(double x) { return {vdupq_n_f64(x)}; }
};

CLR_INLINE F32 operator-(F32 a) { return {vnegq_f32(a.x)}; }
CLR_INLINE F64 operator-(F64 a) { return {vnegq_f64(a.x)}; }
CLR_INLINE F32 operator+(F32 a, F32 b) { return {vaddq_f32(a.x, b.x)}; }
CLR_INLINE F64 operator+(F64 a, F64 b) { return {vaddq_f64(a.x, b.x)}; }
CLR_INLINE F32 operator-(F32 a, F32 b) { return {vsubq_f32(a.x, b.x)}; }
CLR_INLINE F64 operator-(F64 a, F64 b) { return {vsubq_f64(a.x, b.x)}; }
CLR_INLINE F32 operator*(F32 a, F32 b) { return {vmulq_f32(a.x, b.x)}; }
CLR_INLINE F64 operator*(F64 a, F64 b) { return {vmulq_f64(a.x, b.x)}; }
CLR_INLINE F32 fused(F32 a, F32 b, F32 c) { return {vfmaq_f32(c.x, a.x, b.x)}; }
CLR_INLINE F64 fused(F64 a, F64 b, F64 c) { return {vfmaq_f64(c.x, a.x, b.x)}; }
CLR_INLINE F64 fused_once(F64 a, F64 b, F64 c) { return fused(a, b, c); }

CLR_INLINE void widen(F32 a, Pack<F64, 2>& to) {
  to.lanes[0].x = vcvt_f64_f32(vget_low_f32(a.x));
  to.lanes[1].x = vcvt_high_f64_f32(a.x);
}

// These instructions return NaN if one operand is NaN.
CLR_INLINE F32 limited(F32 a, F32 limit) { return {vmaxq_f32((-limit).x, vminq_f32(limit.x, a.x))}; }
CLR_INLINE F64 limited(F64 a, F64 limit) { return {vmaxq_f64((-limit).x, vminq_f64(limit.x, a.x))}; }
CLR_INLINE F32 where_equal(F32 a, F32 b, F32 equal, F32 other) {
  return {vbslq_f32(vceqq_f32(a.x, b.x), equal.x, other.x)};
}

CLR_INLINE uint16x4_t rounded_to_bfloat16(F32 a) {
  const uint32x4_t bits = vreinterpretq_u32_f32(a.x);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t sum = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
  const uint32x4_t number = vceqq_f32(a.x, a.x);
  return vmovn_u32(vbslq_u32(number, vshrq_n_u32(sum, 16), vdupq_n_u32(0x7fc0)));
}

// The conversion instruction keeps a NaN's payload. Here every NaN is stored as 0x7e00 with the value's sign.
CLR_INLINE uint16x4_t rounded_to_float16(F32 a) {
  const uint32x4_t bits = vreinterpretq_u32_f32(a.x);
  const uint32x4_t plain = vorrq_u32(vandq_u32(bits, vdupq_n_u32(0x80000000u)), vdupq_n_u32(0x7fc00000u));
  const uint32x4_t number = vceqq_f32(a.x, a.x);
  return vreinterpret_u16_f16(vcvt_f16_f32(vreinterpretq_f32_u32(vbslq_u32(number, bits, plain))));
}

CLR_INLINE void load(const float* from, F32& to) { to.x = vld1q_f32(from); }
CLR_INLINE void load(const double* from, F64& to) { to.x = vld1q_f64(from); }
CLR_INLINE void load(const Bfloat16* from, F32& to) {
  to.x = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t*>(from)), 16));
}
CLR_INLINE void load(const Float16* from, F32& to) {
  to.x = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(from))));
}

CLR_INLINE void store(const F32& from, float* to) { vst1q_f32(to, from.x); }
CLR_INLINE void store(const F64& from, double* to) { vst1q_f64(to, from.x); }
CLR_INLINE void store(const F32& from, Bfloat16* to) {
  vst1_u16(reinterpret_cast<uint16_t*>(to), rounded_to_bfloat16(from));
}
CLR_INLINE void store(const F32& from, Float16* to) {
  vst1_u16(reinterpret_cast<uint16_t*>(to), rounded_to_float16(from));
}

template <class Lane, class Element>
CLR_INLINE void load_first(const Element* from, int n, Lane& to) {
  load_first_by_copy(from, n, to);
}

template <class Lane, class Element>
CLR_INLINE void store_first(const Lane& from, int n, Element* to) {
  store_first_by_copy(from, n, to);
}

// --- integers, for random numbers ---

struct U32 {
  using Real = uint32_t;
  static constexpr int width = 4;
  uint32x4_t x;
  static U32 all(uint32_t x) { return {vdupq_n_u32(x)}; }
};

CLR_INLINE U32 operator+(U32 a, U32 b) { return {vaddq_u32(a.x, b.x)}; }
CLR_INLINE U32 operator*(U32 a, U32 b) { return {vmulq_u32(a.x, b.x)}; }
CLR_INLINE U32 operator^(U32 a, U32 b) { return {veorq_u32(a.x, b.x)}; }
CLR_INLINE U32 operator*(U32 a, uint32_t b) { return a * U32::all(b); }
CLR_INLINE U32 operator^(U32 a, uint32_t b) { return a ^ U32::all(b); }
CLR_INLINE U32 operator&(U32 a, uint32_t b) { return {vandq_u32(a.x, U32::all(b).x)}; }
CLR_INLINE U32 operator>>(U32 a, int n) { return {vshlq_u32(a.x, vdupq_n_s32(-n))}; }
CLR_INLINE U32 counting_from(uint32_t first) {
  const uint32_t places[] = {0, 1, 2, 3};
  return U32::all(first) + U32{vld1q_u32(places)};
}
CLR_INLINE U32 where_less(U32 a, U32 b, U32 less, U32 other) {
  return {vbslq_u32(vcltq_u32(a.x, b.x), less.x, other.x)};
}

CLR_INLINE U32 bits_of(F32 a) { return {vreinterpretq_u32_f32(a.x)}; }
CLR_INLINE F32 float_of_bits(U32 a) { return {vreinterpretq_f32_u32(a.x)}; }
CLR_INLINE U32 truncated(F32 a) { return {vcvtq_u32_f32(a.x)}; }
CLR_INLINE F32 converted(U32 a) { return {vcvtq_f32_u32(a.x)}; }

template <class Half>
CLR_INLINE void store(const U32& from, Half* to) {
  vst1_u16(reinterpret_cast<uint16_t*>(to), vmovn_u32(from.x));
}

}  // namespace
}  // namespace clr
