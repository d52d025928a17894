// 16-bit floats by their definition, without bit tricks: what the kernels' conversions are held against.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "support/bits.h"

namespace clr_test {

struct HalfFormat {
  int mantissa_bits, bias;
  bool nan_keeps_sign;  // the NaN that a store leaves

  int exponent_bits() const { return 15 - mantissa_bits; }
  int exponent_mask() const { return (1 << exponent_bits()) - 1; }
  int mantissa_mask() const { return (1 << mantissa_bits) - 1; }
  int smallest_exponent() const { return 1 - bias; }

  double value(std::uint16_t bits) const {
    const int exponent = (bits >> mantissa_bits) & exponent_mask();
    const int mantissa = bits & mantissa_mask();
    const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
    if (exponent == exponent_mask()) return mantissa != 0 ? std::nan("") : sign * HUGE_VAL;
    if (exponent == 0) return sign * std::ldexp(mantissa, smallest_exponent() - mantissa_bits);
    return sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
  }

  bool is_nan(std::uint16_t bits) const { return (bits & 0x7fff) > (exponent_mask() << mantissa_bits); }

  // To nearest, ties to even; beyond the largest number to infinity.
  std::uint16_t rounded(double x) const {
    const int sign = std::signbit(x) ? 0x8000 : 0;
    const int infinity = exponent_mask() << mantissa_bits;
    const double magnitude = std::fabs(x);
    if (magnitude == HUGE_VAL) return static_cast<std::uint16_t>(sign | infinity);
    const int exponent = magnitude == 0.0 ? smallest_exponent() : std::max(std::ilogb(magnitude), smallest_exponent());
    // An integer below 2^(mantissa_bits + 1), or exactly that.
    const int units = static_cast<int>(std::nearbyint(std::ldexp(magnitude, mantissa_bits - exponent)));
    // Numbers in order have encodings in order, subnormal ones and infinity included.
    const int encoding = units + ((exponent - smallest_exponent()) << mantissa_bits);
    return static_cast<std::uint16_t>(sign | std::min(encoding, infinity));
  }

  // What a kernel stores for the float `x`.
  std::uint16_t stored(float x) const {
    if (!clr_test::is_nan(x)) return rounded(static_cast<double>(x));
    const int quiet = (exponent_mask() << mantissa_bits) | (1 << (mantissa_bits - 1));
    return static_cast<std::uint16_t>((nan_keeps_sign && std::signbit(x) ? 0x8000 : 0) | quiet);
  }
};

inline constexpr HalfFormat kFloat16 = {10, 15, true};
inline constexpr HalfFormat kBfloat16 = {7, 127, false};

}  // namespace clr_test
