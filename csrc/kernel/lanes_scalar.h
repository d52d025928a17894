// Lanes of one number, without `fused`: the includer defines it, because a CPU without fma and a GPU differ in it.
#pragma once

#include "kernel/half.h"

namespace clr {
namespace {

template <class Number>
struct Scalar {
  using Real = Number;
  static constexpr int width = 1;
  Number x;
  CLR_INLINE_MEMBER static Scalar all(Number x) { return {x}; }
};

using F32 = Scalar<float>;
using F64 = Scalar<double>;

template <class Number>
CLR_INLINE Scalar<Number> operator-(Scalar<Number> a) {
  return {-a.x};
}

template <class Number>
CLR_INLINE Scalar<Number> operator+(Scalar<Number> a, Scalar<Number> b) {
  return {a.x + b.x};
}

template <class Number>
CLR_INLINE Scalar<Number> operator-(Scalar<Number> a, Scalar<Number> b) {
  return {a.x - b.x};
}

template <class Number>
CLR_INLINE Scalar<Number> operator*(Scalar<Number> a, Scalar<Number> b) {
  return {a.x * b.x};
}

CLR_INLINE void widen(F32 a, Pack<F64, 1>& to) { to.lanes[0].x = static_cast<double>(a.x); }

template <class Number>
CLR_INLINE Scalar<Number> limited(Scalar<Number> a, Scalar<Number> limit) {
  return {a.x > limit.x ? limit.x : a.x < -limit.x ? -limit.x : a.x};
}

template <class Number>
CLR_INLINE Scalar<Number> where_equal(Scalar<Number> a, Scalar<Number> b, Scalar<Number> equal, Scalar<Number> other) {
  return a.x == b.x ? equal : other;
}

CLR_INLINE void load(const float* from, F32& to) { to.x = *from; }
CLR_INLINE void load(const double* from, F64& to) { to.x = *from; }
CLR_INLINE void load(const Bfloat16* from, F32& to) { to.x = widened(*from); }
CLR_INLINE void load(const Float16* from, F32& to) { to.x = widened(*from); }

CLR_INLINE void store(const F32& from, float* to) { *to = from.x; }
CLR_INLINE void store(const F64& from, double* to) { *to = from.x; }
CLR_INLINE void store(const F32& from, Bfloat16* to) { *to = rounded_to_bfloat16(from.x); }
CLR_INLINE void store(const F32& from, Float16* to) { *to = rounded_to_float16(from.x); }

// Never reached: no count lies strictly between 0 and a width of 1.
template <class Lane, class Element>
CLR_INLINE void load_first(const Element* from, int, Lane& to) {
  load(from, to);
}

template <class Lane, class Element>
CLR_INLINE void store_first(const Lane& from, int, Element* to) {
  store(from, to);
}

// --- integers, for random numbers ---

using U32 = Scalar<uint32_t>;

CLR_INLINE U32 counting_from(uint32_t first) { return {first}; }
CLR_INLINE U32 operator^(U32 a, U32 b) { return {a.x ^ b.x}; }
CLR_INLINE U32 operator^(U32 a, uint32_t b) { return {a.x ^ b}; }
CLR_INLINE U32 operator&(U32 a, uint32_t b) { return {a.x & b}; }
CLR_INLINE U32 operator*(U32 a, uint32_t b) { return {a.x * b}; }
CLR_INLINE U32 operator>>(U32 a, int n) { return {a.x >> n}; }
CLR_INLINE U32 where_less(U32 a, U32 b, U32 less, U32 other) { return a.x < b.x ? less : other; }

CLR_INLINE U32 bits_of(F32 a) { return {bits_of_float(a.x)}; }
CLR_INLINE F32 float_of_bits(U32 a) { return {float_of_bits(a.x)}; }
CLR_INLINE U32 truncated(F32 a) { return {static_cast<uint32_t>(a.x)}; }
CLR_INLINE F32 converted(U32 a) { return {static_cast<float>(a.x)}; }

template <class Half>
CLR_INLINE void store(const U32& from, Half* to) {
  *to = static_cast<Half>(from.x);
}

}  // namespace
}  // namespace clr
