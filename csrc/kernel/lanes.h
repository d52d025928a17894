// Packs and storage types shared by all instruction sets. Internal linkage throughout, as in core/.
//
// An instruction set defines F32 and F64 (a register of numbers) with: all(x), width, Real; unary -, +, -, *, fused;
// limited(a, limit), which is a within [-limit, limit] and NaN where a is; load, load_first, store, store_first for the
// storage types below, where the `_first` forms touch n elements only, 0 < n < width, and read zeros behind them.
// 16-bit storage is read into F32 and rounded once, to nearest even, when stored. F32 also has widen(a, to), its
// numbers as a pack of F64, and where_equal(a, b, equal, other): a == b ? equal : other. F64 also has fused_once(a, b,
// c): fused with one rounding, on the baseline too.
//
// U32 is as wide, of uint32_t, for random numbers, with: all, width, Real; +, ^, * (lower half) and >> by a constant,
// ^, & and * with one number for all; counting_from(n), which is n, n + 1, ...; where_less(a, b, less, other) for a and
// b below 2^31; bits_of(F32), float_of_bits(U32); truncated(F32), for 0 <= x < 2^31, and converted(U32), for numbers
// below 2^24; store and store_first, which write the lower 16 bits of each as 16-bit storage.
#pragma once

#include "core/slot.h"

namespace clr {
namespace {

enum class Bfloat16 : uint16_t {};
enum class Float16 : uint16_t {};

// The number of lanes that a loop has in flight. They hide the latency of an fma, and uniform branches are taken once
// for all of them. With more than four, gcc leaves the lanes in memory and the loop takes twice as long.
constexpr int kLanesPerBlock = 4;

template <class Lane, int count>
struct Pack {
  using Real = typename Lane::Real;
  static constexpr int width = count * Lane::width;
  Lane lanes[count];

  CLR_INLINE_MEMBER static Pack all(Real x) {
    Pack r;
    for (int i = 0; i < count; ++i) r.lanes[i] = Lane::all(x);
    return r;
  }
};

template <class Lane, int count>
CLR_INLINE Pack<Lane, count> operator-(Pack<Lane, count> a) {
  for (int i = 0; i < count; ++i) a.lanes[i] = -a.lanes[i];
  return a;
}

template <class Lane, int count>
CLR_INLINE Pack<Lane, count> operator+(Pack<Lane, count> a, Pack<Lane, count> b) {
  for (int i = 0; i < count; ++i) a.lanes[i] = a.lanes[i] + b.lanes[i];
  return a;
}

template <class Lane, int count>
CLR_INLINE Pack<Lane, count> operator-(Pack<Lane, count> a, Pack<Lane, count> b) {
  for (int i = 0; i < count; ++i) a.lanes[i] = a.lanes[i] - b.lanes[i];
  return a;
}

template <class Lane, int count>
CLR_INLINE Pack<Lane, count> operator*(Pack<Lane, count> a, Pack<Lane, count> b) {
  for (int i = 0; i < count; ++i) a.lanes[i] = a.lanes[i] * b.lanes[i];
  return a;
}

template <class Lane, int count>
CLR_INLINE Pack<Lane, count> fused(Pack<Lane, count> a, Pack<Lane, count> b, Pack<Lane, count> c) {
  for (int i = 0; i < count; ++i) a.lanes[i] = fused(a.lanes[i], b.lanes[i], c.lanes[i]);
  return a;
}

template <class Lane, int count>
CLR_INLINE Pack<Lane, count> fused_once(Pack<Lane, count> a, Pack<Lane, count> b, Pack<Lane, count> c) {
  for (int i = 0; i < count; ++i) a.lanes[i] = fused_once(a.lanes[i], b.lanes[i], c.lanes[i]);
  return a;
}

template <class Lane, int count>
CLR_INLINE Pack<Lane, count> limited(Pack<Lane, count> a, Pack<Lane, count> limit) {
  for (int i = 0; i < count; ++i) a.lanes[i] = limited(a.lanes[i], limit.lanes[i]);
  return a;
}

template <class Lane, int count>
CLR_INLINE Pack<Lane, count> where_equal(Pack<Lane, count> a, Pack<Lane, count> b, Pack<Lane, count> equal,
                                         Pack<Lane, count> other) {
  for (int i = 0; i < count; ++i) a.lanes[i] = where_equal(a.lanes[i], b.lanes[i], equal.lanes[i], other.lanes[i]);
  return a;
}

template <class Lane, int count, class Element>
CLR_INLINE void load(const Element* from, Pack<Lane, count>& to) {
  for (int i = 0; i < count; ++i) load(from + i * Lane::width, to.lanes[i]);
}

// Loads the first n elements, 0 < n < width, and zeros behind them.
template <class Lane, int count, class Element>
CLR_INLINE void load_first(const Element* from, int n, Pack<Lane, count>& to) {
  for (int i = 0; i < count; ++i) {
    const int left = n - i * Lane::width;
    if (left >= Lane::width) {
      load(from + i * Lane::width, to.lanes[i]);
    } else if (left > 0) {
      load_first(from + i * Lane::width, left, to.lanes[i]);
    } else {
      to.lanes[i] = Lane::all(0);
    }
  }
}

template <class Lane, int count, class Element>
CLR_INLINE void store(const Pack<Lane, count>& from, Element* to) {
  for (int i = 0; i < count; ++i) store(from.lanes[i], to + i * Lane::width);
}

// The `_first` forms for instruction sets without masks copy through a small array.
template <class Lane, class Element>
CLR_INLINE void load_first_by_copy(const Element* from, int n, Lane& to) {
  Element whole[Lane::width] = {};
  for (int i = 0; i < n; ++i) whole[i] = from[i];
  load(whole, to);
}

template <class Lane, class Element>
CLR_INLINE void store_first_by_copy(const Lane& from, int n, Element* to) {
  Element whole[Lane::width];
  store(from, whole);
  for (int i = 0; i < n; ++i) to[i] = whole[i];
}

}  // namespace
}  // namespace clr
