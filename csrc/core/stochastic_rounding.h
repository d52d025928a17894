// Stochastic rounding of float32 to 16-bit floats, written once for any lane: add random bits below the last place and
// cut off. `Lane` is float32 numbers, `Bits` as many uint32_t, `random` 32 random bits for each; the result has its 16
// bits in the lower half. For what a lane must offer see kernel/lanes.h.
//
// With the two neighbours of x in the 16-bit format, `down` towards zero:
//   P(the one away from zero) = (|x| - |down|) / (distance of the two), subnormal numbers included; so a number that
//   the format has is never changed, and the mean is x. Exact for bfloat16, and for float16 where |x| >= 2^-32; below,
//   short by less than 2^-31.
//   Beyond the largest finite number no probability makes the mean x. There it rounds to nearest: chance makes no
//   infinity of a number that nearest would keep, and what has diverged shows as infinity as it does with nearest.
//   Infinities stay; a NaN becomes the one that rounding to nearest stores.
#pragma once

#include "core/random.h"

namespace clr {

// Uses the upper 16 random bits.
template <class Lane, class Bits>
CLR_INLINE Bits stochastic_bfloat16(Lane x, Bits random) {
  const Bits bits = bits_of(x);
  const Bits magnitude = bits & 0x7fffffffu;
  const Bits largest = Bits::all(0x7f7f0000u), infinity = Bits::all(0x7f800000u);
  const Bits below = where_less(magnitude, largest, random >> 16, Bits::all(0x8000u));
  return where_less(infinity, magnitude, Bits::all(0x7fc0u), (bits + below) >> 16);
}

// x must be below 2^-14, where float16 numbers are multiples of 2^-24: the result is the multiple. Uses the upper 31
// random bits.
template <class Lane, class Bits>
CLR_INLINE Bits stochastic_multiple(Lane x, Bits random) {
  const Lane exact = x * Lane::all(0x1p24f);
  const Bits whole = truncated(exact);
  const Bits fraction = truncated((exact - converted(whole)) * Lane::all(0x1p31f));
  return whole + (((random >> 1) + fraction) >> 31);
}

// Uses the upper 13 random bits, and the upper 31 below 2^-14.
template <class Lane, class Bits>
CLR_INLINE Bits stochastic_float16(Lane x, Bits random) {
  const Bits bits = bits_of(x);
  const Bits magnitude = bits & 0x7fffffffu;
  const Bits smallest_normal = Bits::all(0x38800000u), largest = Bits::all(0x477fe000u);
  const Bits overflow = Bits::all(0x47800000u), infinity = Bits::all(0x7f800000u);
  const Bits small =
      stochastic_multiple(float_of_bits(where_less(magnitude, smallest_normal, magnitude, Bits::all(0))), random);
  const Bits below = where_less(magnitude, largest, random >> 19, Bits::all(0x1000u));
  // The exponent moves from bias 127 to 15.
  const Bits rebased = where_less(magnitude, overflow, magnitude, overflow) + Bits::all(0u - (112u << 23));
  const Bits number = where_less(magnitude, smallest_normal, small, (rebased + below) >> 13);
  return ((bits >> 16) & 0x8000u) + where_less(infinity, magnitude, Bits::all(0x7e00u), number);
}

}  // namespace clr
