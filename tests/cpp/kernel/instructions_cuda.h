// What csrc/kernel/instructions_cuda.h has, for a host: here it is found first.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace clr {
namespace {

inline float float_of_half(std::uint16_t half) {
  const bool is_nan = (half & 0x7fffu) > 0x7c00u;
  const int exponent = half >> 10 & 31, digits = half & 0x3ff;
  const double size = exponent == 31  ? HUGE_VAL
                      : exponent == 0 ? std::ldexp(digits, -24)
                                      : std::ldexp(1024 + digits, exponent - 25);
  return is_nan ? std::nanf("") : static_cast<float>((half & 0x8000u) != 0 ? -size : size);
}

// Counts units of the result's last place, rounded as the host rounds: to nearest even.
inline std::uint16_t half_of_float(float value) {
  if (std::isnan(value)) return 0x7fff;
  const unsigned sign = std::signbit(value) ? 0x8000u : 0;
  const double size = std::fabs(static_cast<double>(value));
  if (size >= 65520.0) return static_cast<std::uint16_t>(sign | 0x7c00u);
  int exponent = 0;
  std::frexp(size, &exponent);
  if (size < 0x1p-14) exponent = -13;
  const auto units = static_cast<unsigned>(std::nearbyint(std::ldexp(size, 11 - exponent)));
  return static_cast<std::uint16_t>(sign | (static_cast<unsigned>(exponent + 13) * 1024u + units));
}

inline std::uint32_t upper_halves(std::uint32_t low, std::uint32_t high) { return low >> 16 | (high & 0xffff0000u); }

}  // namespace
}  // namespace clr
