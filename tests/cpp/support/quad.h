// Numbers of 113 bits, where the platform has them: the truth beside double-double.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>

#if defined(__SIZEOF_FLOAT128__)
#define CLR_TEST_QUAD 1
#elif LDBL_MANT_DIG >= 113
#define CLR_TEST_QUAD 1
#else
#define CLR_TEST_QUAD 0  // tests that need it say that they are skipped
#endif

#if CLR_TEST_QUAD

#include "core/double_double.h"

namespace clr_test {

#if defined(__SIZEOF_FLOAT128__)
using Quad = __float128;
#else
using Quad = long double;
#endif

inline Quad quad(double x) { return static_cast<Quad>(x); }
inline Quad quad(std::uint64_t n) { return static_cast<Quad>(n); }
inline Quad quad(clr::DoubleDouble x) { return quad(x.hi) + quad(x.lo); }
inline Quad magnitude(Quad x) { return x < quad(0.0) ? -x : x; }

// |got - truth| in units of the last place that a double has there.
inline double error_in_ulp(double got, Quad truth) {
  double below = static_cast<double>(truth);
  if (magnitude(quad(below)) > magnitude(truth)) below = std::nextafter(below, 0.0);
  const int exponent = below == 0.0 ? -1022 : std::max(std::ilogb(below), -1022);
  return static_cast<double>(magnitude(quad(got) - truth) / quad(std::ldexp(1.0, exponent - 52)));
}

// log2 of the relative error, for promises like "below 2^-93"; 0 is -1000.
inline double relative_error_log2(clr::DoubleDouble got, Quad truth) {
  const double relative = static_cast<double>(magnitude(quad(got) - truth) / magnitude(truth));
  return relative == 0.0 ? -1000.0 : std::log2(relative);
}

// The plain Taylor series, summed until a term adds nothing. For |x| below about 2.
inline Quad quad_exp_minus_one(Quad x) {
  Quad term = x, sum = x;
  for (int n = 2; n < 80; ++n) {
    term = term * x / quad(static_cast<double>(n));
    sum += term;
  }
  return sum;
}

inline Quad quad_sin(Quad x) {
  Quad term = x, sum = x;
  for (int n = 2; n < 60; n += 2) {
    term = -term * x * x / quad(static_cast<double>(n) * (n + 1));
    sum += term;
  }
  return sum;
}

inline Quad quad_half_pi() { return quad(0x1.921fb54442d18p+0) + quad(0x1.1a62633145c07p-54); }

// Newton's step doubles the digits of a double's root.
inline Quad quad_root(Quad x) {
  if (x == quad(0.0)) return x;
  Quad root = quad(std::sqrt(static_cast<double>(x)));
  for (int i = 0; i < 2; ++i) root = (root + x / root) / quad(2.0);
  return root;
}

// By repeated squaring: relative error below about n 2^-112.
inline Quad quad_power(double base, std::uint64_t n) {
  Quad power = quad(1.0), square = quad(base);
  for (; n != 0; n >>= 1) {
    if ((n & 1) != 0) power = power * square;
    square = square * square;
  }
  return power;
}

}  // namespace clr_test

#endif  // CLR_TEST_QUAD
