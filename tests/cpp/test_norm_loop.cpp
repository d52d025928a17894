// Sums of squares: close to the truth, the same bits on every instruction set, and nothing read but what was asked for.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "support/bits.h"
#include "support/guarded_array.h"
#include "support/isas.h"
#include "support/quad.h"
#include "support/update_reference.h"

using clr::DoubleDouble;
using clr::NormPart;
using clr_test::GuardedArray;
using clr_test::Random;

#define CLR_ALL_TYPES clr_test::Float32, clr_test::Float64, clr_test::Bfloat16, clr_test::Float16

namespace {

// Over four blocks of all_finite on the widest instruction set: 8 registers of 16 floats.
constexpr std::size_t kMostElements = 4 * 128 + 17;

template <class T>
using Elements = std::vector<typename T::Element>;

template <class T>
NormPart sum_of(const clr::Isa& isa, const Elements<T>& x, std::size_t begin, std::size_t end, double limit = 0.0) {
  return isa.kernels->sum_squares(x.data(), T::dtype, static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end),
                                  limit);
}

template <class T>
bool finite_in(const clr::Isa& isa, const Elements<T>& x, std::size_t begin, std::size_t end) {
  return isa.kernels->all_finite(x.data(), T::dtype, static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end));
}

bool same(NormPart a, NormPart b) {
  return clr_test::same(a.squares.hi, b.squares.hi) && clr_test::same(a.squares.lo, b.squares.lo) &&
         a.finite == b.finite;
}

template <class T>
typename T::Element element(double x) {
  return T::stored(static_cast<typename T::Real>(x));
}

// Numbers of `spread` powers of two.
template <class T>
Elements<T> spread_numbers(std::size_t count, Random& random, std::uint64_t spread) {
  Elements<T> x(count);
  for (auto& e : x) e = element<T>(random.signed_unit() * std::ldexp(1.0, -static_cast<int>(random.below(spread))));
  return x;
}

}  // namespace

TEST_CASE_TEMPLATE("norm loop: the same bits on every instruction set", T, CLR_ALL_TYPES) {
  Random random(1);
  const clr::Isa& baseline = clr::compiled_isas().front();
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (int i = 0; i < 2000; ++i) {
      const std::size_t size = i % 100 == 0 ? 16384 : random.below(kMostElements);
      const Elements<T> x = clr_test::numbers<T>(size, random, i % 4 == 0 ? 200 : 0);
      const std::size_t begin = i % 100 == 0 ? 0 : random.below(size + 1);
      const double limit = i % 3 == 0 ? 0.3 : 0.0;
      INFO(std::string(isa.name), ", elements ", begin, " to ", size, ", limit ", limit);
      REQUIRE(same(sum_of<T>(isa, x, begin, size, limit), sum_of<T>(baseline, x, begin, size, limit)));
    }
  }
}

TEST_CASE_TEMPLATE("norm loop: infinity and NaN are found at every place", T, CLR_ALL_TYPES) {
  Random random(2);
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const std::size_t size : {1u, 7u, 16u, 37u, 300u}) {
      Elements<T> x = clr_test::numbers<T>(size, random, 0);
      CHECK(sum_of<T>(isa, x, 0, size).finite);
      CHECK(sum_of<T>(isa, x, 0, size, 0.25).finite);
      CHECK(finite_in<T>(isa, x, 0, size));
      for (std::size_t at = 0; at < size; ++at) {
        const auto kept = x[at];
        for (const double bad : {HUGE_VAL, -HUGE_VAL, std::nan("")}) {
          x[at] = element<T>(bad);
          INFO(std::string(isa.name), ", size ", size, ", ", bad, " at ", at);
          const NormPart sum = sum_of<T>(isa, x, 0, size), limited = sum_of<T>(isa, x, 0, size, 0.25);
          REQUIRE_FALSE(sum.finite);
          REQUIRE_FALSE(limited.finite);
          REQUIRE_FALSE(finite_in<T>(isa, x, 0, size));
          REQUIRE(clr_test::same(sum.squares.hi, bad * bad));
          REQUIRE(sum.squares.lo == 0.0);
          REQUIRE(clr_test::is_nan(limited.squares.hi) == clr_test::is_nan(bad));
        }
        x[at] = kept;
      }
    }
  }
}

TEST_CASE_TEMPLATE("norm loop: the largest and smallest numbers are finite", T, CLR_ALL_TYPES) {
  const bool is_double = sizeof(typename T::Element) == 8, is_float16 = T::dtype == clr::DType::float16;
  const double large = is_double ? 0x1.8p+1023 : is_float16 ? 65504.0 : 0x1.8p+127;
  const double tiny = is_double ? 0x1p-1060 : is_float16 ? 0x1p-24 : 0x1p-133;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    CAPTURE(std::string(isa.name));
    const std::size_t size = 100;
    const Elements<T> larges(size, element<T>(large)), tinies(size, element<T>(tiny)), zeros(size, element<T>(0.0));
    CHECK(sum_of<T>(isa, larges, 0, size).finite);
    CHECK(finite_in<T>(isa, larges, 0, size));
    CHECK(sum_of<T>(isa, larges, 0, size).squares.hi == (is_double ? HUGE_VAL : 100.0 * (large * large)));
    CHECK(sum_of<T>(isa, larges, 0, size, 0.5).squares.hi == 25.0);
    CHECK(sum_of<T>(isa, tinies, 0, size).squares.hi == (is_double ? 0.0 : 100.0 * (tiny * tiny)));
    CHECK(same(sum_of<T>(isa, zeros, 0, size), NormPart{}));
    CHECK(same(sum_of<T>(isa, zeros, 0, 0), NormPart{}));
    CHECK(finite_in<T>(isa, zeros, 0, 0));
  }
}

TEST_CASE("norm loop: a sum that overflows only where its parts meet is infinite and finite") {
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const std::size_t size : {2u, 9u, 17u, 100u}) {
      const std::vector<double> x(size, 0x1.6p+511);
      const NormPart sum = sum_of<clr_test::Float64>(isa, x, 0, size);
      CAPTURE(std::string(isa.name));
      CAPTURE(size);
      CHECK(sum.finite);
      CHECK(sum.squares.hi == (size == 2 ? 0x1.e4p+1023 : HUGE_VAL));
      CHECK(clr_test::same(sum.squares.lo, 0.0));
    }
  }
}

TEST_CASE_TEMPLATE("norm loop: what lies outside the range is not read", T, CLR_ALL_TYPES) {
  Random random(3);
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    GuardedArray<typename T::Element> array(kMostElements);
    for (std::size_t size = 0; size <= kMostElements; size += size < 80 ? 1 : 7) {
      const Elements<T> x = clr_test::numbers<T>(size, random, 0);
      const NormPart sum = sum_of<T>(isa, x, 0, size), limited = sum_of<T>(isa, x, 0, size, 0.25);
      for (const std::size_t gap : {0u, 1u, 5u, 16u}) {
        array.put(x, gap);  // right behind it, with no gap, reading faults
        INFO(std::string(isa.name), ", size ", size, ", gap ", gap);
        const auto n = static_cast<std::int64_t>(size);
        REQUIRE(same(isa.kernels->sum_squares(array.data(), T::dtype, 0, n, 0.0), sum));
        REQUIRE(same(isa.kernels->sum_squares(array.data(), T::dtype, 0, n, 0.25), limited));
        REQUIRE(isa.kernels->all_finite(array.data(), T::dtype, 0, n));
      }
      // Neighbours that would show.
      const std::size_t begin = 1 + random.below(20), end = begin + size;
      Elements<T> framed(end + 20, element<T>(std::nan("")));
      std::copy(x.begin(), x.end(), framed.begin() + static_cast<std::ptrdiff_t>(begin));
      REQUIRE(same(sum_of<T>(isa, framed, begin, end), sum));
      REQUIRE(finite_in<T>(isa, framed, begin, end));
    }
  }
}

#if CLR_TEST_QUAD

namespace {

using clr_test::quad;
using clr_test::Quad;

template <class T>
Quad quad_squares(const Elements<T>& x, double limit) {
  const auto bound = static_cast<typename T::Real>(limit);
  Quad sum = quad(0.0);
  for (const auto e : x) {
    auto number = T::read(e);
    if (limit != 0.0) number = std::min(std::max(number, -bound), bound);
    sum += quad(static_cast<double>(number)) * quad(static_cast<double>(number));
  }
  return sum;
}

}  // namespace

TEST_CASE_TEMPLATE("norm loop: error bound of a sum", T, CLR_ALL_TYPES) {
  Random random(4);
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    double worst = -1000, worst_ulp = 0;
    for (int i = 0; i < 400; ++i) {
      const std::size_t size = i % 20 == 0 ? 16384 : 1 + random.below(kMostElements);
      const double limit = i % 3 == 0 ? 0.3 : 0.0;
      const bool alike = i % 5 == 0;
      const Elements<T> x = alike ? Elements<T>(size, element<T>(0.1 + random.unit()))
                                  : spread_numbers<T>(size, random, i % 2 == 0 ? 1 : 20);
      const DoubleDouble sum = sum_of<T>(isa, x, 0, size, limit).squares;
      const Quad truth = quad_squares<T>(x, limit);
      if (truth == quad(0.0)) continue;
      const double error = clr_test::relative_error_log2(sum, truth);
      // 16 sums of so many terms and the four levels of their tree; a settled double-double holds 2^-106.
      const double terms = static_cast<double>(size + 15) / 16 + 4;
      REQUIRE(error <= std::max(2 * std::log2(terms) - 107, -104.0));
      if (!alike) worst = std::max(worst, error);
      worst_ulp = std::max(worst_ulp, clr_test::error_in_ulp(clr::square_root(sum).hi, clr_test::quad_root(truth)));
    }
    CAPTURE(std::string(isa.name));
    CHECK(worst <= -98);  // of random numbers, whose errors have both signs
    CHECK(worst_ulp <= 0.5 + 0x1p-34);
  }
}

#else

TEST_CASE("norm loop: error bound of a sum") { MESSAGE("not tested: no 113-bit numbers here"); }

#endif
