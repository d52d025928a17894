// Lanes of AVX2 with FMA and F16C.
#pragma once

#include <immintrin.h>

#include "kernel/lanes.h"

namespace clr {
namespace {

struct F32 {
  using Real = float;
  static constexpr int width = 8;
  __m256 x;
  static F32 all(float x) { return {_mm256_set1_ps(x)}; }
};

struct F64 {
  using Real = double;
  static constexpr int width = 4;
  __m256d x;
  static F64 all(double x) { return {_mm256_set1_pd(x)}; }
};

CLR_INLINE F32 operator-(F32 a) { return {_mm256_xor_ps(a.x, _mm256_set1_ps(-0.0f))}; }
CLR_INLINE F64 operator-(F64 a) { return {_mm256_xor_pd(a.x, _mm256_set1_pd(-0.0))}; }
CLR_INLINE F32 operator+(F32 a, F32 b) { return {_mm256_add_ps(a.x, b.x)}; }
CLR_INLINE F64 operator+(F64 a, F64 b) { return {_mm256_add_pd(a.x, b.x)}; }
CLR_INLINE F32 operator-(F32 a, F32 b) { return {_mm256_sub_ps(a.x, b.x)}; }
CLR_INLINE F64 operator-(F64 a, F64 b) { return {_mm256_sub_pd(a.x, b.x)}; }
CLR_INLINE F32 operator*(F32 a, F32 b) { return {_mm256_mul_ps(a.x, b.x)}; }
CLR_INLINE F64 operator*(F64 a, F64 b) { return {_mm256_mul_pd(a.x, b.x)}; }
CLR_INLINE F32 fused(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.x, b.x, c.x)}; }
CLR_INLINE F64 fused(F64 a, F64 b, F64 c) { return {_mm256_fmadd_pd(a.x, b.x, c.x)}; }
CLR_INLINE F64 fused_once(F64 a, F64 b, F64 c) { return fused(a, b, c); }

CLR_INLINE void widen(F32 a, Pack<F64, 2>& to) {
  to.lanes[0].x = _mm256_cvtps_pd(_mm256_castps256_ps128(a.x));
  to.lanes[1].x = _mm256_cvtps_pd(_mm256_extractf128_ps(a.x, 1));
}

// These instructions return the second operand if one operand is NaN.
CLR_INLINE F32 limited(F32 a, F32 limit) { return {_mm256_max_ps((-limit).x, _mm256_min_ps(limit.x, a.x))}; }
CLR_INLINE F64 limited(F64 a, F64 limit) { return {_mm256_max_pd((-limit).x, _mm256_min_pd(limit.x, a.x))}; }
CLR_INLINE F32 where_equal(F32 a, F32 b, F32 equal, F32 other) {
  return {_mm256_blendv_ps(other.x, equal.x, _mm256_cmp_ps(a.x, b.x, _CMP_EQ_OQ))};
}

CLR_INLINE __m128i rounded_to_bfloat16(F32 a) {
  const __m256i bits = _mm256_castps_si256(a.x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.x, a.x, _CMP_UNORD_Q));
  const __m256i rounded = _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), _mm256_set1_epi32(0x7fc0), nan);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
  return _mm256_castsi256_si128(packed);
}

// The conversion instruction keeps a NaN's payload. Here every NaN is stored as 0x7e00 with the value's sign.
CLR_INLINE __m128i rounded_to_float16(F32 a) {
  const __m256 nan = _mm256_cmp_ps(a.x, a.x, _CMP_UNORD_Q);
  const __m256i sign = _mm256_and_si256(_mm256_castps_si256(a.x), _mm256_set1_epi32(INT32_MIN));
  const __m256i plain = _mm256_or_si256(sign, _mm256_set1_epi32(0x7fc00000));
  const __m256 x = _mm256_blendv_ps(a.x, _mm256_castsi256_ps(plain), nan);
  return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

CLR_INLINE void load(const float* from, F32& to) { to.x = _mm256_loadu_ps(from); }
CLR_INLINE void load(const double* from, F64& to) { to.x = _mm256_loadu_pd(from); }
CLR_INLINE void load(const Bfloat16* from, F32& to) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  to.x = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
CLR_INLINE void load(const Float16* from, F32& to) {
  to.x = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

CLR_INLINE void store(const F32& from, float* to) { _mm256_storeu_ps(to, from.x); }
CLR_INLINE void store(const F64& from, double* to) { _mm256_storeu_pd(to, from.x); }
CLR_INLINE void store(const F32& from, Bfloat16* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), rounded_to_bfloat16(from));
}
CLR_INLINE void store(const F32& from, Float16* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), rounded_to_float16(from));
}

CLR_INLINE __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
CLR_INLINE __m256i first_lanes_64(int n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}

CLR_INLINE void load_first(const float* from, int n, F32& to) { to.x = _mm256_maskload_ps(from, first_lanes(n)); }
CLR_INLINE void load_first(const double* from, int n, F64& to) { to.x = _mm256_maskload_pd(from, first_lanes_64(n)); }
CLR_INLINE void load_first(const Bfloat16* from, int n, F32& to) { load_first_by_copy(from, n, to); }
CLR_INLINE void load_first(const Float16* from, int n, F32& to) { load_first_by_copy(from, n, to); }

CLR_INLINE void store_first(const F32& from, int n, float* to) { _mm256_maskstore_ps(to, first_lanes(n), from.x); }
CLR_INLINE void store_first(const F64& from, int n, double* to) { _mm256_maskstore_pd(to, first_lanes_64(n), from.x); }
CLR_INLINE void store_first(const F32& from, int n, Bfloat16* to) { store_first_by_copy(from, n, to); }
CLR_INLINE void store_first(const F32& from, int n, Float16* to) { store_first_by_copy(from, n, to); }

// --- integers, for random numbers ---

struct U32 {
  using Real = uint32_t;
  static constexpr int width = 8;
  __m256i x;
  static U32 all(uint32_t x) { return {_mm256_set1_epi32(static_cast<int>(x))}; }
};

CLR_INLINE U32 operator+(U32 a, U32 b) { return {_mm256_add_epi32(a.x, b.x)}; }
CLR_INLINE U32 operator*(U32 a, U32 b) { return {_mm256_mullo_epi32(a.x, b.x)}; }
CLR_INLINE U32 operator^(U32 a, U32 b) { return {_mm256_xor_si256(a.x, b.x)}; }
CLR_INLINE U32 operator*(U32 a, uint32_t b) { return a * U32::all(b); }
CLR_INLINE U32 operator^(U32 a, uint32_t b) { return a ^ U32::all(b); }
CLR_INLINE U32 operator&(U32 a, uint32_t b) { return {_mm256_and_si256(a.x, U32::all(b).x)}; }
CLR_INLINE U32 operator>>(U32 a, int n) { return {_mm256_srli_epi32(a.x, n)}; }
CLR_INLINE U32 counting_from(uint32_t first) {
  return U32::all(first) + U32{_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)};
}
CLR_INLINE U32 where_less(U32 a, U32 b, U32 less, U32 other) {
  return {_mm256_blendv_epi8(other.x, less.x, _mm256_cmpgt_epi32(b.x, a.x))};
}

CLR_INLINE U32 bits_of(F32 a) { return {_mm256_castps_si256(a.x)}; }
CLR_INLINE F32 float_of_bits(U32 a) { return {_mm256_castsi256_ps(a.x)}; }
CLR_INLINE U32 truncated(F32 a) { return {_mm256_cvttps_epi32(a.x)}; }
CLR_INLINE F32 converted(U32 a) { return {_mm256_cvtepi32_ps(a.x)}; }

template <class Half>
CLR_INLINE void store(const U32& from, Half* to) {
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(from.x, from.x), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
}
template <class Half>
CLR_INLINE void store_first(const U32& from, int n, Half* to) {
  store_first_by_copy(from, n, to);
}

}  // namespace
}  // namespace clr
