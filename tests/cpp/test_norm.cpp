// Roots of sums of squares, and what clipping and LARS make of them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/norm.h"
#include "support/bits.h"
#include "support/quad.h"

using clr::DoubleDouble;
using clr_test::Random;

namespace {

const double kNan = std::nan("");

bool is(DoubleDouble a, double hi) { return clr_test::same(a.hi, hi) && a.lo == 0.0; }

}  // namespace

TEST_CASE("norm: roots of zero, infinity, NaN and whole squares") {
  CHECK(is(clr::square_root({0.0, 0.0}), 0.0));
  CHECK(is(clr::square_root({HUGE_VAL, 0.0}), HUGE_VAL));
  CHECK(is(clr::square_root({kNan, 0.0}), kNan));
  for (const double root : {1.0, 3.0, 0x1p-300, 0x1.8p+300}) CHECK(is(clr::square_root({root * root, 0.0}), root));
}

TEST_CASE("norm: a growing sum keeps infinities and NaN, and what is finite beside them") {
  const clr::NormPart one = {{1.0, 0x1p-60}, true}, huge = {{0x1.fp+1023, 0.0}, true};
  const clr::NormPart infinite = {{HUGE_VAL, 0.0}, false}, nan = {{kNan, 0.0}, false};
  const auto sum = [](clr::NormPart a, clr::NormPart b) { return clr::settled(clr::grown(a, b).squares); };
  CHECK(sum(one, one).hi == 2.0);
  CHECK(sum(one, one).lo == 0x1p-59);
  CHECK(is(sum(huge, huge), HUGE_VAL));
  CHECK(clr::grown(huge, huge).finite);
  for (const clr::NormPart& x : {one, huge, infinite}) {
    CHECK(is(sum(x, infinite), HUGE_VAL));
    CHECK(is(sum(infinite, x), HUGE_VAL));
    CHECK_FALSE(clr::grown(x, infinite).finite);
    CHECK(is(sum(x, nan), kNan));
    CHECK(is(sum(nan, x), kNan));
    CHECK_FALSE(clr::grown(nan, x).finite);
  }
}

namespace {

std::vector<clr::NormPart> random_parts(std::size_t count, Random& random) {
  std::vector<clr::NormPart> parts(count);
  for (clr::NormPart& part : parts) {
    const double hi = 0.1 + random.unit();
    part.squares = clr::fast_two_sum(hi, hi * 0x1p-53 * random.signed_unit());
  }
  return parts;
}

}  // namespace

TEST_CASE("norm: parts that are zeros leave a sum as it is, whichever of the sums they go to") {
  Random random(3);
  for (std::size_t count = 0; count <= 100; ++count) {
    std::vector<clr::NormPart> parts = random_parts(count, random);
    const clr::NormPart sum = clr::combined(parts.data(), count);
    CAPTURE(count);
    CHECK(sum.finite);
    for (std::size_t more = count; more <= count + 70; ++more) {
      const clr::NormPart same = clr::combined(parts.data(), more);
      REQUIRE(clr_test::same(same.squares.hi, sum.squares.hi));
      REQUIRE(clr_test::same(same.squares.lo, sum.squares.lo));
      parts.emplace_back();
    }
  }
}

TEST_CASE("norm: what is not finite in one of many parts") {
  Random random(4);
  for (const std::size_t count : {1u, 2u, 31u, 33u, 64u, 97u}) {
    for (std::size_t at = 0; at < count; ++at) {
      std::vector<clr::NormPart> parts = random_parts(count, random);
      parts[at] = {{HUGE_VAL, 0.0}, false};
      CHECK(is(clr::combined(parts.data(), count).squares, HUGE_VAL));
      CHECK_FALSE(clr::combined(parts.data(), count).finite);
      parts[at] = {{kNan, 0.0}, false};
      CHECK(is(clr::combined(parts.data(), count).squares, kNan));
    }
  }
}

TEST_CASE("norm: clipping at its edges") {
  const struct {
    double norm, max_norm, coefficient;
  } cases[] = {
      {0.0, 1.0, 1.0},      {0.0, 0.0, 0.0},        {5.0, 0.0, 0.0},
      {0.5, 1.0, 1.0},      {0.0, 1.7e308, 1.0},                                 // the quotient overflows
      {3.0, HUGE_VAL, 1.0}, {HUGE_VAL, 1.0, 0.0},   {HUGE_VAL, HUGE_VAL, kNan},  // as torch
      {kNan, 1.0, kNan},    {kNan, HUGE_VAL, kNan}, {1e300, 1e-8, 1e-308},
  };
  for (const auto& c : cases) {
    CAPTURE(c.norm);
    CAPTURE(c.max_norm);
    CHECK(clr_test::same(clr::clip_coefficient({c.norm, 0.0}, c.max_norm), c.coefficient));
  }
}

TEST_CASE("norm: a factor scales both halves, and infinity and NaN stay") {
  const DoubleDouble doubled = clr::scaled({3.0, 0x1p-60}, 2.0);
  CHECK(doubled.hi == 6.0);
  CHECK(doubled.lo == 0x1p-59);
  CHECK(is(clr::scaled({HUGE_VAL, 0.0}, 0.5), HUGE_VAL));
  CHECK(is(clr::scaled({kNan, 0.0}, 0.5), kNan));
}

TEST_CASE("norm: trust ratio is LARS' quotient, and one where a norm is zero") {
  CHECK(clr::trust_ratio(0.5, 0.0, 0.0, 8.0, 2.0) == 2.0);
  CHECK(clr::trust_ratio(0.5, 0.0, 0.25, 8.0, 2.0) == 1.0);  // 4 / (2 + 2)
  CHECK(clr::trust_ratio(0.5, 4.0, 0.25, 8.0, 2.0) == 0.5);  // 4 / (2 + 2 + 4)
  CHECK(clr::trust_ratio(0.001, 1e-8, 0.1, 0.0, 2.0) == 1.0);
  CHECK(clr::trust_ratio(0.001, 1e-8, 0.1, 3.0, 0.0) == 1.0);
  CHECK(clr_test::is_nan(clr::trust_ratio(0.001, 1e-8, 0.1, 3.0, kNan)));
  CHECK(clr::trust_ratio(0.001, 1e-8, 0.1, 3.0, HUGE_VAL) == 0.0);
}

#if CLR_TEST_QUAD

namespace {

using clr_test::quad;
using clr_test::Quad;

// A number of any magnitude, the low half as large as it can be.
DoubleDouble any_double_double(Random& random, int spread) {
  const double size = std::ldexp(1.0, static_cast<int>(random.below(static_cast<std::uint64_t>(spread))) - spread / 2);
  const double hi = (1.0 + random.unit()) * size;
  return clr::fast_two_sum(hi, hi * 0x1p-53 * random.signed_unit());
}

}  // namespace

TEST_CASE("norm: error bound of square_root") {
  Random random(1);
  double worst = -1000, worst_ulp = 0;
  for (int i = 0; i < 20000; ++i) {
    const DoubleDouble a = any_double_double(random, 1600), root = clr::square_root(a);
    const Quad truth = clr_test::quad_root(quad(a));
    worst = std::max(worst, clr_test::relative_error_log2(root, truth));
    worst_ulp = std::max(worst_ulp, clr_test::error_in_ulp(root.hi, truth));
  }
  CHECK(worst <= -106 + 2.33);  // 5 u^2; the truth itself is off by 2^-112
  CHECK(worst_ulp <= 0.5 + 0x1p-40);
}

TEST_CASE("norm: error bound of combined parts") {
  Random random(5);
  for (const std::size_t count : {2u, 33u, 1000u, 10000u}) {
    for (const bool alike : {false, true}) {
      std::vector<clr::NormPart> parts = random_parts(count, random);
      if (alike) parts.assign(count, parts[0]);
      Quad truth = quad(0.0);
      for (const clr::NormPart& part : parts) truth += quad(part.squares);
      const double error = clr_test::relative_error_log2(clr::combined(parts.data(), count).squares, truth);
      const double terms = static_cast<double>(count + clr::kPartSums - 1) / clr::kPartSums + 9;
      CAPTURE(count);
      CHECK(error <= std::max(2 * std::log2(terms) - 107, -104.0));
    }
  }
}

TEST_CASE("norm: the clip coefficient is rounded once") {
  Random random(2);
  double worst = 0;
  for (int i = 0; i < 20000; ++i) {
    const DoubleDouble norm = any_double_double(random, 60);
    // From far below the norm to just above it.
    const double max_norm = norm.hi * (i % 2 == 0 ? 1.01 * random.unit() : 1.0 + 0x1p-50 * random.signed_unit());
    const Quad quotient = quad(max_norm) / (quad(norm) + quad(1e-6));
    const Quad truth = quotient < quad(1.0) ? quotient : quad(1.0);
    worst = std::max(worst, clr_test::error_in_ulp(clr::clip_coefficient(norm, max_norm), truth));
  }
  CHECK(worst <= 0.5 + 0x1p-40);
}

#else

TEST_CASE("norm: error bounds") { MESSAGE("not tested: no 113-bit numbers here"); }

#endif
