// Double-double arithmetic keeps the error bounds that core/double_double.h states.
#include <doctest/doctest.h>

#include "core/double_double.h"
#include "support/bits.h"
#include "support/quad.h"

using clr::DoubleDouble;
using clr_test::Random;

namespace {

constexpr int kTries = 20000;

// A number of any magnitude where nothing underflows.
double any_double(Random& random) {
  return random.signed_unit() * std::ldexp(1.0, static_cast<int>(random.below(400)) - 200);
}

}  // namespace

TEST_CASE("double_double: every 64-bit count is exact") {
  Random random(1);
  for (int i = 0; i < kTries; ++i) {
    const std::uint64_t n = random.bits() >> random.below(64);
    const DoubleDouble x = clr::from_count(n);
    // Both halves are whole numbers; their sum, taken in integers, is the count.
    const auto high = static_cast<std::uint64_t>(x.hi >= 0x1p63 ? x.hi - 0x1p63 : x.hi);
    const std::uint64_t whole = (x.hi >= 0x1p63 ? high + (std::uint64_t{1} << 63) : high) +
                                static_cast<std::uint64_t>(static_cast<std::int64_t>(x.lo));
    if (x.hi < 0x1p64) REQUIRE(whole == n);
  }
  CHECK(clr::from_count(0).hi == 0.0);
  CHECK(clr::from_count(UINT64_MAX).hi == 0x1p64);
  CHECK(clr::from_count(UINT64_MAX).lo == -1.0);
}

TEST_CASE("double_double: sums and products of two doubles are exact") {
  Random random(2);
  for (int i = 0; i < kTries; ++i) {
    const double a = any_double(random), b = any_double(random);
    const DoubleDouble product = clr::two_product(a, b);
    REQUIRE(product.hi == a * b);
    REQUIRE(product.lo == std::fma(a, b, -(a * b)));
    const DoubleDouble sum = clr::two_sum(a, b);
    const DoubleDouble back = clr::two_sum(b, a);
    REQUIRE(sum.hi == a + b);
    REQUIRE(sum.hi == back.hi);
    REQUIRE(sum.lo == back.lo);
  }
}

TEST_CASE("double_double: a quotient of equals is one, of zero it is zero") {
  Random random(4);
  for (int i = 0; i < kTries; ++i) {
    const double hi = any_double(random);
    const DoubleDouble a = clr::fast_two_sum(hi, hi * 0x1p-54 * random.signed_unit());
    const DoubleDouble one = clr::ratio(a, a), zero = clr::ratio({0.0, 0.0}, a);
    REQUIRE(one.hi == 1.0);
    REQUIRE(one.lo == 0.0);
    REQUIRE(zero.hi == 0.0);
    REQUIRE(zero.lo == 0.0);
  }
}

#if CLR_TEST_QUAD

namespace {

// The low half as large as it can be, or smaller.
DoubleDouble any_double_double(Random& random) {
  const double hi = any_double(random);
  return clr::fast_two_sum(hi, hi * 0x1p-53 * random.signed_unit());
}

}  // namespace

TEST_CASE("double_double: error bounds of add, times and ratio") {
  using clr_test::quad;
  Random random(3);
  // log2 of 3 u^2, 5 u^2, 4 u^2 and 15 u^2 with u = 2^-53; the truth itself is off by 2^-113.
  const double add_bound = -106 + 1.59, times_bound = -106 + 2.33, ratio_bound = -106 + 2.01;
  const double quotient_bound = -106 + 3.91;
  double worst_add = -1000, worst_times = -1000, worst_ratio = -1000, worst_quotient = -1000;
  for (int i = 0; i < kTries; ++i) {
    const DoubleDouble a = any_double_double(random), b = any_double_double(random);
    // The bound of add is for the larger of two magnitudes: quads lose digits in cancellation as well.
    const DoubleDouble same_sign = (a.hi < 0) == (b.hi < 0) ? b : clr::negated(b);
    worst_add = std::max(worst_add, clr_test::relative_error_log2(clr::add(a, same_sign), quad(a) + quad(same_sign)));
    worst_times = std::max(worst_times, clr_test::relative_error_log2(clr::times(a, b), quad(a) * quad(b)));
    worst_ratio = std::max(worst_ratio, clr_test::relative_error_log2(clr::ratio(a.hi, b.hi), quad(a.hi) / quad(b.hi)));
    worst_quotient = std::max(worst_quotient, clr_test::relative_error_log2(clr::ratio(a, b), quad(a) / quad(b)));
  }
  CHECK(worst_add <= add_bound);
  CHECK(worst_times <= times_bound);
  CHECK(worst_ratio <= ratio_bound);
  CHECK(worst_quotient <= quotient_bound);
}

#else

TEST_CASE("double_double: error bounds of add, times and ratio") { MESSAGE("not tested: no 113-bit numbers here"); }

#endif
