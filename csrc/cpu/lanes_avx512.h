// Lanes of AVX-512 (F, BW, DQ, VL). Tails use masks: elements outside are neither read nor written.
#pragma once

#include <immintrin.h>

#include "kernel/lanes.h"

namespace clr {
namespace {

struct F32 {
  using Real = float;
  static constexpr int width = 16;
  __m512 x;
  static F32 all(float x) { return {_mm512_set1_ps(x)}; }
};

struct F64 {
  using Real = double;
  static constexpr int width = 8;
  __m512d x;
  static F64 all(double x) { return {_mm512_set1_pd(x)}; }
};

CLR_INLINE F32 operator-(F32 a) { return {_mm512_xor_ps(a.x, _mm512_set1_ps(-0.0f))}; }
CLR_INLINE F64 operator-(F64 a) { return {_mm512_xor_pd(a.x, _mm512_set1_pd(-0.0))}; }
CLR_INLINE F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.x, b.x)}; }
CLR_INLINE F64 operator+(F64 a, F64 b) { return {_mm512_add_pd(a.x, b.x)}; }
CLR_INLINE F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.x, b.x)}; }
CLR_INLINE F64 operator-(F64 a, F64 b) { return {_mm512_sub_pd(a.x, b.x)}; }
CLR_INLINE F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.x, b.x)}; }
CLR_INLINE F64 operator*(F64 a, F64 b) { return {_mm512_mul_pd(a.x, b.x)}; }
CLR_INLINE F32 fused(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.x, b.x, c.x)}; }
CLR_INLINE F64 fused(F64 a, F64 b, F64 c) { return {_mm512_fmadd_pd(a.x, b.x, c.x)}; }
CLR_INLINE F64 fused_once(F64 a, F64 b, F64 c) { return fused(a, b, c); }

CLR_INLINE void widen(F32 a, Pack<F64, 2>& to) {
  to.lanes[0].x = _mm512_cvtps_pd(_mm512_castps512_ps256(a.x));
  to.lanes[1].x = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a.x, 1));
}

// These instructions return the second operand if one operand is NaN.
CLR_INLINE F32 limited(F32 a, F32 limit) { return {_mm512_max_ps((-limit).x, _mm512_min_ps(limit.x, a.x))}; }
CLR_INLINE F64 limited(F64 a, F64 limit) { return {_mm512_max_pd((-limit).x, _mm512_min_pd(limit.x, a.x))}; }
CLR_INLINE F32 where_equal(F32 a, F32 b, F32 equal, F32 other) {
  return {_mm512_mask_mov_ps(other.x, _mm512_cmp_ps_mask(a.x, b.x, _CMP_EQ_OQ), equal.x)};
}

CLR_INLINE F32 widened_bfloat16(__m256i bits) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}

CLR_INLINE __m256i rounded_to_bfloat16(F32 a) {
  const __m512i bits = _mm512_castps_si512(a.x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(a.x, a.x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32(sum, 16), nan, _mm512_set1_epi32(0x7fc0)));
}

// The conversion instruction keeps a NaN's payload. Here every NaN is stored as 0x7e00 with the value's sign.
CLR_INLINE __m256i rounded_to_float16(F32 a) {
  const __mmask16 nan = _mm512_cmp_ps_mask(a.x, a.x, _CMP_UNORD_Q);
  const __m512i sign = _mm512_and_si512(_mm512_castps_si512(a.x), _mm512_set1_epi32(INT32_MIN));
  const __m512i plain = _mm512_or_si512(sign, _mm512_set1_epi32(0x7fc00000));
  const __m512 x = _mm512_mask_mov_ps(a.x, nan, _mm512_castsi512_ps(plain));
  return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

CLR_INLINE void load(const float* from, F32& to) { to.x = _mm512_loadu_ps(from); }
CLR_INLINE void load(const double* from, F64& to) { to.x = _mm512_loadu_pd(from); }
CLR_INLINE void load(const Bfloat16* from, F32& to) {
  to = widened_bfloat16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
CLR_INLINE void load(const Float16* from, F32& to) {
  to.x = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

CLR_INLINE void store(const F32& from, float* to) { _mm512_storeu_ps(to, from.x); }
CLR_INLINE void store(const F64& from, double* to) { _mm512_storeu_pd(to, from.x); }
CLR_INLINE void store(const F32& from, Bfloat16* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), rounded_to_bfloat16(from));
}
CLR_INLINE void store(const F32& from, Float16* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), rounded_to_float16(from));
}

CLR_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }

CLR_INLINE void load_first(const float* from, int n, F32& to) { to.x = _mm512_maskz_loadu_ps(first_lanes(n), from); }
CLR_INLINE void load_first(const double* from, int n, F64& to) {
  to.x = _mm512_maskz_loadu_pd(static_cast<__mmask8>(first_lanes(n)), from);
}
CLR_INLINE void load_first(const Bfloat16* from, int n, F32& to) {
  to = widened_bfloat16(_mm256_maskz_loadu_epi16(first_lanes(n), from));
}
CLR_INLINE void load_first(const Float16* from, int n, F32& to) {
  to.x = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), from));
}

CLR_INLINE void store_first(const F32& from, int n, float* to) { _mm512_mask_storeu_ps(to, first_lanes(n), from.x); }
CLR_INLINE void store_first(const F64& from, int n, double* to) {
  _mm512_mask_storeu_pd(to, static_cast<__mmask8>(first_lanes(n)), from.x);
}
CLR_INLINE void store_first(const F32& from, int n, Bfloat16* to) {
  _mm256_mask_storeu_epi16(to, first_lanes(n), rounded_to_bfloat16(from));
}
CLR_INLINE void store_first(const F32& from, int n, Float16* to) {
  _mm256_mask_storeu_epi16(to, first_lanes(n), rounded_to_float16(from));
}

// --- integers, for random numbers ---

struct U32 {
  using Real = uint32_t;
  static constexpr int width = 16;
  __m512i x;
  static U32 all(uint32_t x) { return {_mm512_set1_epi32(static_cast<int>(x))}; }
};

CLR_INLINE U32 operator+(U32 a, U32 b) { return {_mm512_add_epi32(a.x, b.x)}; }
CLR_INLINE U32 operator*(U32 a, U32 b) { return {_mm512_mullo_epi32(a.x, b.x)}; }
CLR_INLINE U32 operator^(U32 a, U32 b) { return {_mm512_xor_si512(a.x, b.x)}; }
CLR_INLINE U32 operator*(U32 a, uint32_t b) { return a * U32::all(b); }
CLR_INLINE U32 operator^(U32 a, uint32_t b) { return a ^ U32::all(b); }
CLR_INLINE U32 operator&(U32 a, uint32_t b) { return {_mm512_and_si512(a.x, U32::all(b).x)}; }
CLR_INLINE U32 operator>>(U32 a, int n) { return {_mm512_srli_epi32(a.x, static_cast<unsigned>(n))}; }
CLR_INLINE U32 counting_from(uint32_t first) {
  return U32::all(first) + U32{_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)};
}
CLR_INLINE U32 where_less(U32 a, U32 b, U32 less, U32 other) {
  return {_mm512_mask_mov_epi32(other.x, _mm512_cmplt_epu32_mask(a.x, b.x), less.x)};
}

CLR_INLINE U32 bits_of(F32 a) { return {_mm512_castps_si512(a.x)}; }
CLR_INLINE F32 float_of_bits(U32 a) { return {_mm512_castsi512_ps(a.x)}; }
CLR_INLINE U32 truncated(F32 a) { return {_mm512_cvttps_epi32(a.x)}; }
CLR_INLINE F32 converted(U32 a) { return {_mm512_cvtepi32_ps(a.x)}; }

template <class Half>
CLR_INLINE void store(const U32& from, Half* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(from.x));
}
template <class Half>
CLR_INLINE void store_first(const U32& from, int n, Half* to) {
  _mm256_mask_storeu_epi16(to, first_lanes(n), _mm512_cvtepi32_epi16(from.x));
}

}  // namespace
}  // namespace clr
