// Stochastic stores of bfloat16 and float16 on every instruction set, against their definition.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/random.h"
#include "support/bits.h"
#include "support/guarded_array.h"
#include "support/half.h"
#include "support/stochastic_isas.h"
#include "support/stochastic_reference.h"

using clr_test::Place;
using clr_test::place_of;
using clr_test::Random;
using clr_test::stochastically_rounded;
using clr_test::StochasticKernels;

namespace {

struct ToBfloat16 : clr_test::Bfloat16Chances {
  static constexpr const char* name = "bfloat16";
  static void round(const StochasticKernels& k, const float* from, const std::uint32_t* random, std::size_t count,
                    std::uint16_t* to) {
    k.to_bfloat16(from, random, static_cast<std::int64_t>(count), to);
  }
};

struct ToFloat16 : clr_test::Float16Chances {
  static constexpr const char* name = "float16";
  static void round(const StochasticKernels& k, const float* from, const std::uint32_t* random, std::size_t count,
                    std::uint16_t* to) {
    k.to_float16(from, random, static_cast<std::int64_t>(count), to);
  }
};

template <class T>
std::uint16_t rounded(const StochasticKernels& k, float x, std::uint32_t random) {
  std::uint16_t to = 0;
  T::round(k, &x, &random, 1, &to);
  return to;
}

template <class T>
std::vector<std::uint16_t> rounded(const StochasticKernels& k, const std::vector<float>& x,
                                   const std::vector<std::uint32_t>& random) {
  std::vector<std::uint16_t> to(x.size());
  T::round(k, x.data(), random.data(), x.size(), to.data());
  return to;
}

// Numbers of all magnitudes, and every second one of those that float16 rounds to a finite number.
std::vector<float> all_kinds(std::size_t size, Random& random) {
  std::vector<float> numbers(size);
  for (std::size_t i = 0; i < size; ++i) {
    const auto bits = static_cast<std::uint32_t>(random.bits());
    const float moderate =
        static_cast<float>(std::ldexp(random.signed_unit(), static_cast<int>(random.below(60)) - 43));
    numbers[i] = i % 2 == 0 ? moderate : clr_test::from_bits<float>(bits);
  }
  return numbers;
}

std::vector<std::uint32_t> random_words(std::size_t size, Random& random) {
  std::vector<std::uint32_t> words(size);
  for (std::uint32_t& word : words) word = static_cast<std::uint32_t>(random.bits());
  return words;
}

// Both signs of numbers in the normal and subnormal ranges that the format does not have.
template <class T>
std::vector<float> between_neighbours() {
  std::vector<float> numbers = {1.0f / 3, 3.14159274f, 0x1.fe0002p0f, 0x1.fffffep0f,
                                123.456f, 0x1.ffdp14f, 0x1.003p-14f};
  for (const float units : {0.001f, 0.25f, 0.9f, 1.3f, 100.7f}) {
    numbers.push_back(units * static_cast<float>(T::format.value(1)));
  }
  const std::size_t size = numbers.size();
  for (std::size_t i = 0; i < size; ++i) numbers.push_back(-numbers[i]);
  return numbers;
}

}  // namespace

TEST_CASE_TEMPLATE("stochastic: every instruction set stores what the definition says", T, ToBfloat16, ToFloat16) {
  Random random(1);
  const std::vector<float> numbers = all_kinds(200001, random);
  const std::vector<std::uint32_t> words = random_words(numbers.size(), random);
  for (const StochasticKernels& k : clr_test::testable_stochastic_kernels()) {
    const std::vector<std::uint16_t> got = rounded<T>(k, numbers, words);
    std::size_t wrong = 0, first_wrong = 0;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (got[i] != stochastically_rounded<T>(numbers[i], words[i]) && wrong++ == 0) first_wrong = i;
    }
    INFO(std::string(k.isa), ", first wrong ", numbers[first_wrong], " with ", words[first_wrong]);
    CHECK(wrong == 0);
  }
}

TEST_CASE_TEMPLATE("stochastic: numbers that the format has stay and NaNs become one", T, ToBfloat16, ToFloat16) {
  std::vector<float> numbers;
  std::vector<std::uint16_t> want;
  for (int i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const bool negative = (bits & 0x8000) != 0;
    numbers.push_back(T::format.is_nan(bits) ? std::copysign(std::nanf(""), negative ? -1.0f : 1.0f)
                                             : static_cast<float>(T::format.value(bits)));
    if (!T::format.is_nan(bits)) numbers.back() = std::copysign(numbers.back(), negative ? -1.0f : 1.0f);
    want.push_back(T::format.is_nan(bits) ? T::format.stored(numbers.back()) : bits);
  }
  for (const std::uint32_t payload : {0x7f800001u, 0x7fbfffffu, 0x7fffffffu, 0xff800001u, 0xffffffffu}) {
    numbers.push_back(clr_test::from_bits<float>(payload));
    want.push_back(T::format.stored(numbers.back()));
  }
  for (const StochasticKernels& k : clr_test::testable_stochastic_kernels()) {
    for (const std::uint32_t word : {0u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
      INFO(std::string(k.isa), ", random bits ", word);
      const auto got = rounded<T>(k, numbers, std::vector<std::uint32_t>(numbers.size(), word));
      CHECK((got == want));
    }
  }
}

TEST_CASE_TEMPLATE("stochastic: beyond the largest number as to nearest", T, ToBfloat16, ToFloat16) {
  const double step = T::largest - T::format.value(static_cast<std::uint16_t>(T::format.rounded(T::largest) - 1));
  const auto infinity = static_cast<std::uint16_t>(T::format.rounded(T::largest) + 1);
  for (const StochasticKernels& k : clr_test::testable_stochastic_kernels()) {
    INFO(std::string(k.isa));
    for (const std::uint32_t word : {0u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
      for (const double units : {0.0, 0.01, 0.49, 0.5, 0.51, 0.99}) {
        const auto x = static_cast<float>(T::largest + units * step);
        CHECK(rounded<T>(k, x, word) == (units < 0.5 ? infinity - 1 : infinity));
        CHECK(rounded<T>(k, -x, word) == (units < 0.5 ? infinity - 1 : infinity) + 0x8000);
      }
      CHECK(rounded<T>(k, HUGE_VALF, word) == infinity);
      CHECK(rounded<T>(k, -HUGE_VALF, word) == infinity + 0x8000);
      CHECK(rounded<T>(k, 0x1.fffffep127f, word) == infinity);
    }
    // One unit in the last place below, chance decides: between the two largest numbers.
    const float below = std::nextafter(T::largest, 0.0f);
    CHECK(rounded<T>(k, below, 0u) == infinity - 2);
    CHECK(rounded<T>(k, below, 0xffffffffu) == infinity - 1);
  }
}

TEST_CASE_TEMPLATE("stochastic: away from zero in as many cases as the fraction says", T, ToBfloat16, ToFloat16) {
  for (const StochasticKernels& k : clr_test::testable_stochastic_kernels()) {
    for (const float x : between_neighbours<T>()) {
      const int bits = T::bits_used(x);
      if (bits > 16) continue;  // too many cases: the next test
      const Place place = place_of(T::format, x);
      const std::size_t cases = std::size_t{1} << bits;
      std::vector<std::uint32_t> words(cases);
      for (std::size_t i = 0; i < cases; ++i) {
        words[i] = static_cast<std::uint32_t>(i << (32 - bits) | (i * 7919 & 0xffff));  // the lower bits do not count
      }
      std::size_t up = 0, elsewhere = 0;
      for (const std::uint16_t got : rounded<T>(k, std::vector<float>(cases, x), words)) {
        up += got == place.up ? 1u : 0u;
        elsewhere += got != place.up && got != place.down ? 1u : 0u;
      }
      INFO(std::string(k.isa), ", ", x);
      CHECK(elsewhere == 0);
      CHECK(static_cast<double>(up) == place.fraction * static_cast<double>(cases));
    }
  }
}

TEST_CASE("stochastic: float16 below 2^-14 turns at the case that the fraction says") {
  for (const StochasticKernels& k : clr_test::testable_stochastic_kernels()) {
    for (const float x : between_neighbours<ToFloat16>()) {
      if (ToFloat16::bits_used(x) != 31) continue;
      const Place place = place_of(clr_test::kFloat16, x);
      const auto cases = static_cast<std::uint32_t>(std::ldexp(place.fraction, 31));
      const std::uint32_t first_up = 0x80000000u - cases;
      INFO(std::string(k.isa), ", ", x);
      CHECK(rounded<ToFloat16>(k, x, 0u) == place.down);
      CHECK(rounded<ToFloat16>(k, x, (first_up - 1) * 2 + 1) == place.down);
      CHECK(rounded<ToFloat16>(k, x, first_up * 2) == place.up);
      CHECK(rounded<ToFloat16>(k, x, 0xffffffffu) == place.up);
    }
  }
}

TEST_CASE_TEMPLATE("stochastic: the mean of many draws is the number", T, ToBfloat16, ToFloat16) {
  constexpr std::size_t draws = 200000;
  std::uint64_t parameter = 0;
  for (const StochasticKernels& k : clr_test::testable_stochastic_kernels()) {
    for (const float x : between_neighbours<T>()) {
      std::vector<std::uint32_t> words(draws);
      k.random_bits(clr::random_key(2024, 5, parameter++), 0, draws, words.data());
      const Place place = place_of(T::format, x);
      double up = 0.0;
      for (const std::uint16_t got : rounded<T>(k, std::vector<float>(draws, x), words)) {
        up += got == place.up ? 1.0 : 0.0;
      }
      const double p = place.fraction, deviation = std::sqrt(p * (1.0 - p) / draws);
      INFO(std::string(k.isa), ", ", x, ": share ", up / draws, ", probability ", p, ", deviation ", deviation);
      CHECK(std::fabs(up / draws - p) <= 4.5 * deviation);
    }
  }
}

TEST_CASE_TEMPLATE("stochastic: every length at every place writes its elements and no others", T, ToBfloat16,
                   ToFloat16) {
  constexpr std::size_t most = 150;  // past two blocks of AVX-512
  Random random(3);
  const std::vector<float> numbers = all_kinds(most, random);
  const std::vector<std::uint32_t> words = random_words(most, random);
  clr_test::GuardedArray<float> from(most);
  clr_test::GuardedArray<std::uint16_t> to(most);
  for (const StochasticKernels& k : clr_test::testable_stochastic_kernels()) {
    std::size_t wrong = 0;
    for (std::size_t size = 0; size <= most; ++size) {
      std::vector<std::uint16_t> want(size);
      for (std::size_t i = 0; i < size; ++i) want[i] = stochastically_rounded<T>(numbers[i], words[i]);
      for (const std::size_t gap : {0u, 1u, 2u, 5u, 32u}) {
        from.put(std::vector<float>(numbers.begin(), numbers.begin() + static_cast<std::ptrdiff_t>(size)), gap);
        to.put(std::vector<std::uint16_t>(size, 0), gap);
        T::round(k, from.data(), words.data(), size, to.data());
        wrong += to.values() == want && to.canaries_live() && from.canaries_live() ? 0u : 1u;
      }
    }
    INFO(std::string(k.isa));
    CHECK(wrong == 0);
  }
}
