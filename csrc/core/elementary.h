// sin(x)^2, exp(x) - 1 and log(x) in double-double, from series: no libm, no tables, no branches on the way.
//
// Relative error below 2^-93 on the domains stated: far below what one rounding to double at the end can show.
#pragma once

#include "core/double_double.h"

namespace clr {

// Returns c + z * r, one step of Horner's scheme.
CLR_INLINE DoubleDouble horner(DoubleDouble c, DoubleDouble z, DoubleDouble r) { return add_same_sign(c, times(z, r)); }

// Returns sin(pi/2 * t)^2 for 0 <= t <= 1/2, the sum of (-1)^(k+1) 2^(2k-1) x^(2k) / (2k)!. Terms that are below 2^-41
// of the sum are added in double.
CLR_INLINE DoubleDouble sin_squared_half_pi(DoubleDouble t) {
  const DoubleDouble x = times(DoubleDouble{0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54}, t);
  const DoubleDouble z = times(x, x);
  double tail = 0x1.2710231c0fd7ap-95;
  tail = fused(tail, z.hi, -0x1.434d2e783f5bcp-87);
  tail = fused(tail, z.hi, 0x1.3932c5047d60ep-79);
  tail = fused(tail, z.hi, -0x1.0a18a2635085dp-71);
  tail = fused(tail, z.hi, 0x1.88e85fc6a4e5ap-64);
  tail = fused(tail, z.hi, -0x1.f2cf01972f578p-57);
  tail = fused(tail, z.hi, 0x1.0ce396db7f853p-49);
  tail = fused(tail, z.hi, -0x1.e542ba4020225p-43);
  tail = fused(tail, z.hi, 0x1.6827863b97d97p-36);
  DoubleDouble r = {tail, 0.0};
  r = horner({-0x1.ae7f3e733b81fp-30, -0x1.1d8656b0ee8cbp-86}, z, r);
  r = horner({0x1.93974a8c07c9dp-24, 0x1.05d6f8a2efd1fp-79}, z, r);
  r = horner({-0x1.1eed8eff8d898p-18, 0x1.2aec959e14c06p-72}, z, r);
  r = horner({0x1.27e4fb7789f5cp-13, 0x1.cbbc05b4fa99ap-67}, z, r);
  r = horner({-0x1.a01a01a01a01ap-9, -0x1.a01a01a01a01ap-69}, z, r);
  r = horner({0x1.6c16c16c16c17p-5, -0x1.f49f49f49f49fp-60}, z, r);
  r = horner({-0x1.5555555555555p-2, -0x1.5555555555555p-56}, z, r);
  r = horner({1.0, 0.0}, z, r);
  return times(z, r);
}

constexpr double kInverseLog2 = 0x1.71547652b82fep+0;
#define CLR_LOG2 (DoubleDouble{0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56})

// exp(x) = 2^exponent * (1 + minus_one), |minus_one| < 0.42. Splitting it so loses nothing when exp(x) is close to
// 1 (exponent 0) and nothing when it is tiny.
struct Exponential {
  DoubleDouble minus_one;
  int64_t exponent;
};

// For |x| < 2^20.
CLR_INLINE Exponential exponential(DoubleDouble x) {
  const double round_to_integer = 6755399441055744.0;  // 1.5 * 2^52: the sum's low bits are the rounded integer
  const double shifted = fused(x.hi, kInverseLog2, round_to_integer);
  const double n = shifted - round_to_integer;
  const DoubleDouble r = add(x, times(CLR_LOG2, -n));
  double tail = 0x1.0ce396db7f853p-70;
  tail = fused(tail, r.hi, 0x1.71b8ef6dcf572p-66);
  tail = fused(tail, r.hi, 0x1.e542ba4020225p-62);
  tail = fused(tail, r.hi, 0x1.2f49b46814157p-57);
  tail = fused(tail, r.hi, 0x1.6827863b97d97p-53);
  tail = fused(tail, r.hi, 0x1.952c77030ad4ap-49);
  tail = fused(tail, r.hi, 0x1.ae7f3e733b81fp-45);
  tail = fused(tail, r.hi, 0x1.ae7f3e733b81fp-41);
  tail = fused(tail, r.hi, 0x1.93974a8c07c9dp-37);
  tail = fused(tail, r.hi, 0x1.6124613a86d09p-33);
  tail = fused(tail, r.hi, 0x1.1eed8eff8d898p-29);
  DoubleDouble s = {tail, 0.0};
  s = horner({0x1.ae64567f544e4p-26, -0x1.c062e06d1f209p-80}, r, s);
  s = horner({0x1.27e4fb7789f5cp-22, 0x1.cbbc05b4fa99ap-76}, r, s);
  s = horner({0x1.71de3a556c734p-19, -0x1.c154f8ddc6c00p-73}, r, s);
  s = horner({0x1.a01a01a01a01ap-16, 0x1.a01a01a01a01ap-76}, r, s);
  s = horner({0x1.a01a01a01a01ap-13, 0x1.a01a01a01a01ap-73}, r, s);
  s = horner({0x1.6c16c16c16c17p-10, -0x1.f49f49f49f49fp-65}, r, s);
  s = horner({0x1.1111111111111p-7, 0x1.1111111111111p-63}, r, s);
  s = horner({0x1.5555555555555p-5, 0x1.5555555555555p-59}, r, s);
  s = horner({0x1.5555555555555p-3, 0x1.5555555555555p-57}, r, s);
  s = horner({0.5, 0.0}, r, s);
  s = horner({1.0, 0.0}, r, s);
  // The low 32 bits of the shifted sum, sign-extended: the integer n without a conversion instruction.
  const int64_t exponent = static_cast<int32_t>(double_to_bits(shifted));
  return {times(r, s), exponent};
}

// Returns 2^n, |n| <= 2044, as a product of two doubles. A number multiplied by one after the other rounds at most
// once.
struct PowerOfTwo {
  double first, second;
};

CLR_INLINE PowerOfTwo power_of_two(int64_t n) {
  const int64_t half = n >> 1;
  return {bits_to_double(static_cast<uint64_t>(half + 1023) << 52),
          bits_to_double(static_cast<uint64_t>(n - half + 1023) << 52)};
}

CLR_INLINE DoubleDouble scaled(DoubleDouble x, PowerOfTwo power) {
  return {x.hi * power.first * power.second, x.lo * power.first * power.second};
}

// Returns log(x) of a positive, finite x, as 2 atanh((m - 1) / (m + 1)) + e log 2 with m in [sqrt(1/2), sqrt(2)).
CLR_INLINE DoubleDouble logarithm(double x) {
  int64_t exponent = 0;
  if (x < 0x1p-1022) {
    x *= 0x1p54;
    exponent = -54;
  }
  const uint64_t bits = double_to_bits(x);
  exponent += static_cast<int64_t>(bits >> 52) - 1023;
  double m = bits_to_double((bits & 0x000fffffffffffffu) | 0x3ff0000000000000u);
  if (m > 0x1.6a09e667f3bcdp+0) {
    m *= 0.5;
    exponent += 1;
  }
  const DoubleDouble denominator = two_sum(m, 1.0);
  const double numerator = m - 1.0;  // exact
  const double q = numerator / denominator.hi;
  const double remainder = fused(-q, denominator.lo, fused(-q, denominator.hi, numerator));
  const DoubleDouble z = fast_two_sum(q, remainder / denominator.hi);
  const DoubleDouble z2 = times(z, z);
  DoubleDouble sum = {0.0, 0.0};
  for (int k = 45; k >= 1; k -= 2) {
    sum = horner(ratio(1.0, k), z2, sum);
  }
  return add(times(times(z, sum), 2.0), times(CLR_LOG2, static_cast<double>(exponent)));
}

}  // namespace clr
