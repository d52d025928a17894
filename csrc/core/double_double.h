// Double-double arithmetic: an unevaluated sum hi + lo with hi = round(hi + lo), about 106 bits.
//
// + - * / and fma only, so every compiler, instruction set and GPU gives the same bits (built with contraction
// off). Error bounds, in u = 2^-53: add 3 u^2, times 5 u^2 (Joldes, Muller, Popescu 2017), ratio 4 u^2 (the inverse and
// the last product are off by u each, times a remainder of 2 u), of double-doubles 15 u^2. They hold while no product
// underflows, that is for magnitudes above about 2^-900.
#pragma once

#include "core/portable.h"

namespace clr {

// An unevaluated sum of two numbers, or of two packs of numbers (a lane of kernel/lanes.h), of one floating type.
template <class Number>
struct HiLo {
  Number hi, lo;
};

using DoubleDouble = HiLo<double>;

// Requires |a| >= |b| or a == 0.
CLR_INLINE DoubleDouble fast_two_sum(double a, double b) {
  const double s = a + b;
  return {s, b - (s - a)};
}

template <class Number>
CLR_INLINE HiLo<Number> two_sum(Number a, Number b) {
  const Number s = a + b;
  const Number t = s - a;
  return {s, (a - (s - t)) + (b - t)};
}

// Returns a + b c. The product b c must be exact in Number.
template <class Number>
CLR_INLINE HiLo<Number> two_sum_product(Number a, Number b, Number c) {
  const Number s = fused(b, c, a);
  const Number t = s - a;
  return {s, (a - (s - t)) + fused(b, c, -t)};
}

CLR_INLINE DoubleDouble two_product(double a, double b) {
  const double p = a * b;
  return {p, fused(a, b, -p)};
}

CLR_INLINE DoubleDouble add(DoubleDouble a, DoubleDouble b) {
  const DoubleDouble s = two_sum(a.hi, b.hi);
  const DoubleDouble t = two_sum(a.lo, b.lo);
  const DoubleDouble v = fast_two_sum(s.hi, s.lo + t.hi);
  return fast_two_sum(v.hi, t.lo + v.lo);
}

CLR_INLINE DoubleDouble add(DoubleDouble a, double b) {
  const DoubleDouble s = two_sum(a.hi, b);
  return fast_two_sum(s.hi, a.lo + s.lo);
}

// Costs half of add. The error is within 3 u^2 of |a| + |b|, which is the sum unless they cancel.
CLR_INLINE DoubleDouble add_same_sign(DoubleDouble a, DoubleDouble b) {
  const DoubleDouble s = two_sum(a.hi, b.hi);
  return fast_two_sum(s.hi, s.lo + (a.lo + b.lo));
}

CLR_INLINE DoubleDouble times(DoubleDouble a, DoubleDouble b) {
  const DoubleDouble p = two_product(a.hi, b.hi);
  return fast_two_sum(p.hi, p.lo + fused(a.hi, b.lo, a.lo * b.hi));
}

CLR_INLINE DoubleDouble times(DoubleDouble a, double b) {
  const DoubleDouble p = two_product(a.hi, b);
  return fast_two_sum(p.hi, fused(a.lo, b, p.lo));
}

// Returns a / b of two doubles, as a quotient and its exact remainder over b. A loop with one b divides once.
CLR_INLINE DoubleDouble ratio(double a, double b) {
  const double inverse = 1.0 / b;
  const double q = a * inverse;
  return fast_two_sum(q, fused(-q, b, a) * inverse);
}

// Returns a / b. Requires b.hi != 0.
CLR_INLINE DoubleDouble ratio(DoubleDouble a, DoubleDouble b) {
  const double q = a.hi / b.hi;
  const DoubleDouble p = two_product(q, b.hi);
  const double remainder = ((a.hi - p.hi) - p.lo) + fused(-q, b.lo, a.lo);
  return fast_two_sum(q, remainder / b.hi);
}

CLR_INLINE DoubleDouble negated(DoubleDouble a) { return {-a.hi, -a.lo}; }

// Converts every 64-bit count exactly: both halves are doubles.
CLR_INLINE DoubleDouble from_count(uint64_t n) {
  const double two52 = 4503599627370496.0;
  const double high = bits_to_double(0x4330000000000000u | (n >> 32)) - two52;
  const double low = bits_to_double(0x4330000000000000u | (n & 0xffffffffu)) - two52;
  return fast_two_sum(high * 4294967296.0, low);
}

}  // namespace clr
