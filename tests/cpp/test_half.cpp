// Loads and stores of bfloat16 and float16, seen through an update that leaves or scales every number.
#include <doctest/doctest.h>

#include <vector>

#include "support/bits.h"
#include "support/half.h"
#include "support/isas.h"
#include "support/update_reference.h"

using clr_test::HalfFormat;

namespace {

constexpr std::size_t kPatterns = 65536;

std::vector<std::uint16_t> all_patterns() {
  std::vector<std::uint16_t> all(kPatterns);
  for (std::size_t i = 0; i < kPatterns; ++i) all[i] = static_cast<std::uint16_t>(i);
  return all;
}

// parameter <- stored(parameter - lr * gradient), without momentum.
void step(const clr::Isa& isa, clr::DType dtype, double lr, std::vector<std::uint16_t>& parameter,
          const std::vector<std::uint16_t>& gradient) {
  const auto size = static_cast<std::int64_t>(parameter.size());
  const clr::Slot slot = {parameter.data(), gradient.data(), nullptr, size, 0, dtype, true};
  isa.kernels->update({}, {lr, 0.0, 0.0, 0.0, false, false}, slot, {0, size});
}

template <class T>
void check_round_trip(const HalfFormat& format) {
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    std::vector<std::uint16_t> parameter = all_patterns();
    step(isa, T::dtype, 0.0, parameter, std::vector<std::uint16_t>(kPatterns, 0));
    std::size_t wrong = 0, first_wrong = kPatterns;
    for (std::size_t i = 0; i < kPatterns; ++i) {
      const auto bits = static_cast<std::uint16_t>(i);
      const std::uint16_t nan = format.stored((bits & 0x8000) != 0 ? -std::nanf("") : std::nanf(""));
      const std::uint16_t want = format.is_nan(bits) ? nan : bits;
      if (parameter[i] != want && wrong++ == 0) first_wrong = i;
    }
    INFO(std::string(isa.name), ", ", std::string(T::name), ", first wrong pattern ", first_wrong);
    CHECK(wrong == 0);
  }
}

// Every pattern times a float is a float of up to 24 bits: all kinds of roundings, ties and overflows.
template <class T>
void check_rounding() {
  std::vector<float> factors = {1.0f,       -1.0f,     0.5f,      1.5f,       0x1.002p0f,  0x1.001p0f,
                                0x1.01p0f,  0x1.03p0f, 3.0f,      0x1p-10f,   0x1.8p-11f,  0x1p-24f,
                                0x1p-120f,  0x1p14f,   0x1p120f,  0x1.ffep0f, 0x1.fffp0f,  0x1.fep0f,
                                0x1.ffp15f, 1e-3f,     0.333333f, 7.77e-39f,  1.00001e30f, 0x1.555556p-15f};
  const std::vector<std::uint16_t> gradient = all_patterns();
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const float factor : factors) {
      std::vector<std::uint16_t> parameter(kPatterns, 0);
      step(isa, T::dtype, -static_cast<double>(factor), parameter, gradient);
      std::size_t wrong = 0, first_wrong = kPatterns;
      for (std::size_t i = 0; i < kPatterns; ++i) {
        const float product = clr_test::fma_or_not(clr_test::has_fma(isa), factor, T::read(gradient[i]), 0.0f);
        if (!T::same(parameter[i], T::stored(product)) && wrong++ == 0) first_wrong = i;
      }
      INFO(std::string(isa.name), ", ", std::string(T::name), ", factor ", factor, ", first wrong pattern ",
           first_wrong);
      CHECK(wrong == 0);
    }
  }
}

}  // namespace

TEST_CASE("half: all float16 patterns survive a load and a store and NaNs become one") {
  check_round_trip<clr_test::Float16>(clr_test::kFloat16);
}

TEST_CASE("half: all bfloat16 patterns survive a load and a store and NaNs become one") {
  check_round_trip<clr_test::Bfloat16>(clr_test::kBfloat16);
}

TEST_CASE("half: float16 stores round once to nearest even") { check_rounding<clr_test::Float16>(); }

TEST_CASE("half: bfloat16 stores round once to nearest even") { check_rounding<clr_test::Bfloat16>(); }

TEST_CASE("half: the reference itself on numbers known by heart") {
  CHECK(clr_test::kFloat16.rounded(1.0) == 0x3c00);
  CHECK(clr_test::kFloat16.rounded(65504.0) == 0x7bff);
  CHECK(clr_test::kFloat16.rounded(65519.0) == 0x7bff);
  CHECK(clr_test::kFloat16.rounded(65520.0) == 0x7c00);
  CHECK(clr_test::kFloat16.rounded(0x1p-24) == 0x0001);
  CHECK(clr_test::kFloat16.rounded(0x1p-25) == 0x0000);
  CHECK(clr_test::kFloat16.rounded(0x1.8p-24) == 0x0002);
  CHECK(clr_test::kFloat16.rounded(1.0 + 0x1p-11) == 0x3c00);
  CHECK(clr_test::kFloat16.rounded(1.0 + 0x1.8p-10) == 0x3c02);
  CHECK(clr_test::kFloat16.rounded(-0.0) == 0x8000);
  CHECK(clr_test::kBfloat16.rounded(1.0) == 0x3f80);
  CHECK(clr_test::kBfloat16.rounded(0x1.fffffep127) == 0x7f80);
  CHECK(clr_test::kBfloat16.rounded(0x1p-133) == 0x0001);
  CHECK(clr_test::kBfloat16.rounded(-3.140625) == 0xc049);
}
