// Stochastic rounding by its definition (core/stochastic_rounding.h), without bit tricks.
#pragma once

#include <cmath>
#include <cstdint>

#include "support/half.h"

namespace clr_test {

struct Bfloat16Chances {
  static constexpr const HalfFormat& format = kBfloat16;
  static constexpr float largest = 0x1.fep127f;
  // How many of the upper random bits decide.
  static int bits_used(float) { return 16; }
};

struct Float16Chances {
  static constexpr const HalfFormat& format = kFloat16;
  static constexpr float largest = 65504.0f;
  static int bits_used(float x) { return std::fabs(x) < 0x1p-14f ? 31 : 13; }
};

// The neighbours of a number that is not beyond the largest finite one, as encodings, and where it lies between them.
struct Place {
  std::uint16_t down, up;  // towards zero and away from it; the same where the format has the number
  double fraction;         // of the way from down to up
};

inline Place place_of(const HalfFormat& format, float x) {
  const std::uint16_t nearest = format.rounded(x);
  const double distance = std::fabs(format.value(nearest)) - std::fabs(static_cast<double>(x));
  if (distance == 0.0) return {nearest, nearest, 0.0};
  const auto down = static_cast<std::uint16_t>(distance > 0.0 ? nearest - 1 : nearest);
  const auto up = static_cast<std::uint16_t>(down + 1);
  const double from = std::fabs(format.value(down)), to = std::fabs(format.value(up));
  return {down, up, (std::fabs(static_cast<double>(x)) - from) / (to - from)};
}

// What is to be stored for any float: away from zero in as many of all cases as the fraction says, rounded down.
template <class T>
std::uint16_t stochastically_rounded(float x, std::uint32_t random) {
  if (!(std::fabs(x) < T::largest)) return T::format.stored(x);
  const Place place = place_of(T::format, x);
  const int bits = T::bits_used(x);
  const double cases = std::floor(std::ldexp(place.fraction, bits));
  return cases + static_cast<double>(random >> (32 - bits)) >= std::ldexp(1.0, bits) ? place.up : place.down;
}

}  // namespace clr_test
