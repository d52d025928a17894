// sin^2, exp - 1 and log keep the promise of core/elementary.h: a relative error below 2^-93.
#include <doctest/doctest.h>

#include "core/elementary.h"
#include "support/bits.h"
#include "support/quad.h"

using clr::DoubleDouble;
using clr_test::Random;

TEST_CASE("elementary: scaling by a power of two rounds once into zero the subnormal numbers or infinity") {
  Random random(5);
  for (int n = -2044; n <= 2044; ++n) {
    const double x = 1.0 + random.unit();
    CAPTURE(n);
    CAPTURE(x);
    CHECK(clr::scaled({x, 0.0}, clr::power_of_two(n)).hi == std::ldexp(x, n));
  }
}

#if CLR_TEST_QUAD

namespace {

constexpr double kPromise = -93.0;
constexpr int kTries = 4000;

using clr_test::quad;
using clr_test::Quad;
using clr_test::relative_error_log2;

// log(x), by one Newton step from libm's value, or by its series where log(x) is close to 0.
Quad quad_log(double x) {
  if (std::fabs(x - 1.0) < 0.25) {
    const Quad z = (quad(x) - quad(1.0)) / (quad(x) + quad(1.0));
    Quad power = z, sum = z;
    for (int n = 3; n < 60; n += 2) {
      power = power * z * z;
      sum += power / quad(static_cast<double>(n));
    }
    return sum + sum;
  }
  const double guess = std::log(x);
  const double whole = std::nearbyint(guess);
  // exp(-guess) = exp(-whole) exp(whole - guess), and x times it is 1 + c with a tiny c.
  const Quad e = quad(1.0) + clr_test::quad_exp_minus_one(quad(1.0));
  Quad power = quad(1.0);
  for (int i = 0; i < std::abs(static_cast<int>(whole)); ++i) power = power * e;
  if (whole > 0) power = quad(1.0) / power;
  const Quad rest = quad(1.0) + clr_test::quad_exp_minus_one(quad(whole) - quad(guess));
  const Quad c = quad(x) * power * rest - quad(1.0);
  return quad(guess) + c - c * c / quad(2.0);
}

}  // namespace

TEST_CASE("elementary: sin(pi/2 t)^2") {
  Random random(1);
  double worst = -1000;
  for (int i = 0; i < kTries; ++i) {
    const double hi = i == 0 ? 0.5 : 0.5 * random.unit() * std::ldexp(1.0, -static_cast<int>(random.below(100)));
    const DoubleDouble t = clr::fast_two_sum(hi, i == 0 ? 0.0 : hi * 0x1p-53 * random.signed_unit());
    const Quad sine = clr_test::quad_sin(clr_test::quad_half_pi() * quad(t));
    worst = std::max(worst, relative_error_log2(clr::sin_squared_half_pi(t), sine * sine));
  }
  CHECK(worst <= kPromise);
}

TEST_CASE("elementary: exp(x) - 1") {
  Random random(2);
  double worst = -1000;
  for (int i = 0; i < kTries; ++i) {
    const double x = 0.34 * random.signed_unit() * std::ldexp(1.0, -static_cast<int>(random.below(100)));
    const clr::Exponential e = clr::exponential({x, 0.0});
    REQUIRE(e.exponent == 0);
    worst = std::max(worst, relative_error_log2(e.minus_one, clr_test::quad_exp_minus_one(quad(x))));
  }
  CHECK(worst <= kPromise);
}

TEST_CASE("elementary: exp(n log 2 + r) splits off n") {
  const Quad log2 = quad(CLR_LOG2);
  Random random(3);
  double worst = -1000;
  for (int i = 0; i < kTries; ++i) {
    const DoubleDouble x = {1000.0 * random.signed_unit(), 0.0};
    const clr::Exponential e = clr::exponential(x);
    const Quad rest = quad(x) - log2 * quad(static_cast<double>(e.exponent));
    REQUIRE(static_cast<double>(clr_test::magnitude(rest)) < 0.3466);
    // exp(rest), not exp(rest) - 1: log 2 itself is known to 2^-107 only, times n.
    worst = std::max(worst,
                     relative_error_log2(clr::add(e.minus_one, 1.0), quad(1.0) + clr_test::quad_exp_minus_one(rest)));
  }
  CHECK(worst <= kPromise);
}

TEST_CASE("elementary: log(x)") {
  Random random(4);
  double worst = -1000;
  for (int i = 0; i < kTries; ++i) {
    const double near_one = 1.0 + random.signed_unit() * std::ldexp(0.9, -static_cast<int>(random.below(52)));
    const double any = (0.5 + random.unit()) * std::ldexp(1.0, static_cast<int>(random.below(200)) - 100);
    const double x = i % 2 == 0 ? near_one : any;
    if (x == 1.0) continue;
    worst = std::max(worst, relative_error_log2(clr::logarithm(x), quad_log(x)));
  }
  CHECK(worst <= kPromise);
}

#else

TEST_CASE("elementary: sin^2 exp and log") { MESSAGE("not tested: no 113-bit numbers here"); }

#endif

TEST_CASE("elementary: logarithm at its ends") {
  CHECK(clr::logarithm(1.0).hi == 0.0);
  CHECK(clr::logarithm(1.0).lo == 0.0);
  CHECK(clr::logarithm(0x1p-1074).hi == doctest::Approx(-744.4400719213812).epsilon(1e-15));
  CHECK(clr::logarithm(0x1.fffffffffffffp+1023).hi == doctest::Approx(709.782712893384).epsilon(1e-15));
}
