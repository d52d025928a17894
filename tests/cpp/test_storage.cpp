// What 16-bit weights are kept with: rests, master weights and random roundings, and who is obeyed.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "support/whole_tensors.h"

using clr_test::Around;
using clr_test::HalfFormat;
using clr_test::Random;
using clr_test::Variant;
using clr_test::WholeTensors;

namespace {

constexpr Variant kPlainSgd = {false, false, false, true, 0.0, 0.0};
constexpr Variant kMomentum = {false, false, true, false, 0.0, 0.0};

// Gradients of zero: what is written is what was read.
template <class K>
WholeTensors<K> standing(std::size_t size) {
  Random random(1);
  WholeTensors<K> tensors(size, random, 0);
  tensors.gradient.assign(size, 0);
  return tensors;
}

template <class T>
double value(typename T::Element x) {
  return static_cast<double>(T::read(x));
}

// Every finite number of the format with a rest on the one side or on the other. `units`: of half a distance to the
// neighbour there.
template <class K>
WholeTensors<K> with_rests(double sign, double units) {
  const HalfFormat& format = K::Parameter::format;
  WholeTensors<K> tensors = standing<K>(0);
  for (unsigned i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    if (!std::isfinite(format.value(bits))) continue;
    const double rest = sign * units * clr_test::half_unit(format, bits, sign);
    if (format.value(format.rounded(rest)) != rest || rest == 0.0) continue;
    tensors.parameter.push_back(bits);
    tensors.companion.push_back(format.rounded(rest));
  }
  const std::size_t size = tensors.parameter.size();
  tensors.gradient.resize(size), tensors.unscaled.resize(size);
  tensors.buffer.resize(size), tensors.average.resize(size);
  return tensors;
}

}  // namespace

// Also where rounding to even puts the sum elsewhere: parameter and rest change places, and the sum stays.
TEST_CASE_TEMPLATE("storage: a rest up to half a unit is kept beside every number", K, CLR_SPLIT_KINDS) {
  using T = typename K::Parameter;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const double sign : {1.0, -1.0}) {
      for (const double units : {1.0, 0.75, 0.5, 0x1p-5}) {
        const WholeTensors<K> start = with_rests<K>(sign, units);
        WholeTensors<K> got = start;
        got.update(isa, kPlainSgd, {}, 0, got.size());
        std::size_t lost = 0, restless = 0;
        for (std::size_t i = 0; i < got.size(); ++i) {
          const double sum = value<T>(start.parameter[i]) + value<T>(start.companion[i]);
          const double after = value<T>(got.parameter[i]) + value<T>(got.companion[i]);
          // float32 has no room for a rest that is far below its parameter.
          lost += static_cast<float>(after) != static_cast<float>(sum) && std::isfinite(after) ? 1 : 0;
          restless += units < 1.0 && got.parameter[i] != start.parameter[i] ? 1 : 0;
        }
        INFO(std::string(isa.name), ", ", sign * units, " half units");
        CHECK(got.size() > 35000);  // the others are too small to have such rests
        CHECK(lost == 0);
        CHECK(restless == 0);
      }
    }
  }
}

TEST_CASE_TEMPLATE("storage: a rest beyond half a unit was left by another number", K, CLR_SPLIT_KINDS) {
  const double next = K::Parameter::dtype == clr::DType::float16 ? 1 + 0x1p-10 : 1 + 0x1p-7;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const double sign : {1.0, -1.0}) {
      for (const double units : {next, 1.25, 1.5, 2.0, 64.0}) {
        const WholeTensors<K> start = with_rests<K>(sign, units);
        WholeTensors<K> got = start;
        got.update(isa, kPlainSgd, {}, 0, got.size());
        INFO(std::string(isa.name), ", ", sign * units, " half units");
        CHECK(got.size() > 35000);  // the others are too small to have such rests
        CHECK((got.parameter == start.parameter));
        CHECK((got.companion == std::vector<std::uint16_t>(got.size(), 0)));
      }
    }
  }
}

TEST_CASE_TEMPLATE("storage: a parameter set to zero or far away forgets its rest", K, CLR_SPLIT_KINDS) {
  using T = typename K::Parameter;
  const float inf = HUGE_VALF;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const float now : {0.0f, 1e-3f, -0.01f, inf, -inf}) {
      WholeTensors<K> got = standing<K>(70);
      got.parameter.assign(70, T::stored(now));
      got.companion.assign(70, T::stored(0.0039f));  // just below half a unit of bfloat16 at 1
      got.update(isa, kPlainSgd, {}, 0, 70);
      INFO(std::string(isa.name), ", ", now);
      CHECK((got.parameter == std::vector<std::uint16_t>(70, T::stored(now))));
      if (std::isfinite(now)) CHECK((got.companion == std::vector<std::uint16_t>(70, 0)));
    }
  }
}

// Of a weight that overflowed the rest is no number. A finite parameter put in its place starts afresh.
TEST_CASE_TEMPLATE("storage: a rest that is no number is forgotten", K, CLR_SPLIT_KINDS) {
  using T = typename K::Parameter;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const float rest : {HUGE_VALF, -HUGE_VALF, std::nanf("")}) {
      WholeTensors<K> got = standing<K>(70);
      got.parameter.assign(70, T::stored(0.5f));
      got.companion.assign(70, T::stored(rest));
      got.update(isa, kPlainSgd, {}, 0, 70);
      CHECK((got.parameter == std::vector<std::uint16_t>(70, T::stored(0.5f))));
      CHECK((got.companion == std::vector<std::uint16_t>(70, 0)));
    }
  }
}

// Each step's sum is off by the rounding of the rest alone: half a unit of a number of at most half a unit.
TEST_CASE_TEMPLATE("storage: steps too small for the parameter add up in the rest", K, CLR_SPLIT_KINDS) {
  using T = typename K::Parameter;
  const int steps = 1000;
  const double unit = value<T>(static_cast<std::uint16_t>(T::stored(1.0f) + 1)) - 1.0;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    WholeTensors<K> got = standing<K>(70);
    got.parameter.assign(70, T::stored(1.0f));
    got.companion.assign(70, 0);
    got.gradient.assign(70, T::stored(static_cast<float>(-unit)));
    const double step = clr_test::group_of(kPlainSgd).lr * -value<T>(got.gradient[0]);
    for (int i = 0; i < steps; ++i) got.update(isa, kPlainSgd, {}, 0, 70);
    const double sum = value<T>(got.parameter[0]) + value<T>(got.companion[0]);
    INFO(std::string(isa.name));
    CHECK(step < unit / 20);
    CHECK(std::fabs(sum - (1.0 + steps * step)) <= steps * (unit * unit / 4 + 0x1p-24));
    CHECK(std::fabs(value<T>(got.companion[0])) <= unit / 2);
    CHECK((got.parameter == std::vector<std::uint16_t>(70, got.parameter[0])));
  }
}

// The master weights are what a float32 parameter with the same gradients would be.
TEST_CASE_TEMPLATE("storage: master weights walk as float32 parameters do", K, clr_test::Bfloat16MasterFloat32,
                   clr_test::Float16MasterFloat32) {
  using T = typename K::Parameter;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    Random random(2);
    WholeTensors<K> got(201, random, 0);
    WholeTensors<clr_test::Float32Own> plain(201, random, 0);
    for (std::size_t i = 0; i < 201; ++i) got.parameter[i] = T::stored(got.companion[i]);
    plain.parameter = got.companion;
    plain.buffer = got.buffer;
    for (int step = 0; step < 50; ++step) {
      got.gradient = clr_test::numbers<T>(201, random, 0);
      for (std::size_t i = 0; i < 201; ++i) plain.gradient[i] = T::read(got.gradient[i]);
      got.update(isa, kMomentum, {}, 0, 201);
      plain.update(isa, kMomentum, {}, 0, 201);
    }
    INFO(std::string(isa.name));
    CHECK((got.companion == plain.parameter));
    CHECK((got.buffer == plain.buffer));
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < 201; ++i) wrong += got.parameter[i] == T::stored(got.companion[i]) ? 0 : 1;
    CHECK(wrong == 0);
  }
}

TEST_CASE_TEMPLATE("storage: a parameter that is not its master weight's copy is obeyed", K, CLR_MASTER_KINDS) {
  using T = typename K::Parameter;
  const std::uint16_t one = T::stored(1.0f);
  const float inf = HUGE_VALF;
  struct Case {
    std::uint16_t parameter;
    float weight, expected;
  };
  const Case cases[] = {{one, 1.0001f, 1.0001f},
                        {static_cast<std::uint16_t>(one + 1), 1.0001f, T::read(static_cast<std::uint16_t>(one + 1))},
                        {0, 1.0f, 0.0f},
                        {0, 1e-44f, 1e-44f},
                        {one, inf, 1.0f},
                        {T::stored(inf), 1.0f, inf},
                        {one, std::nanf(""), 1.0f},
                        {T::stored(std::nanf("")), 1.0f, std::nanf("")}};
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const Case& c : cases) {
      WholeTensors<K> got = standing<K>(70);
      got.parameter.assign(70, c.parameter);
      got.companion.assign(70, c.weight);
      got.update(isa, kPlainSgd, {}, 0, 70);
      INFO(std::string(isa.name), ", parameter ", T::read(c.parameter), ", weight ", c.weight);
      CHECK(clr_test::first_difference(got.companion, std::vector<float>(70, c.expected)) == clr_test::kNoDifference);
      CHECK(T::same(got.parameter[69], T::stored(c.expected)));
    }
  }
}

// The average without a gradient is of what the next update would go on from.
TEST_CASE_TEMPLATE("storage: a master weight whose copy was changed is averaged as changed", K, CLR_MASTER_KINDS) {
  using T = typename K::Parameter;
  Around around;
  around.has_gradient = false;
  around.has_average = around.first_average = true;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    WholeTensors<K> got = standing<K>(2);
    got.parameter = {T::stored(2.0f), T::stored(0.1f)};
    got.companion = {0.5f, 0.1f};
    got.update(isa, kPlainSgd, around, 0, 2);
    CHECK((got.average == std::vector<float>{2.0f, 0.1f}));
  }
}

TEST_CASE_TEMPLATE("storage: the key decides the random roundings and every element has its own", K,
                   CLR_STOCHASTIC_KINDS) {
  using T = typename K::Parameter;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    const auto ones_after = [&](std::uint64_t key) {
      WholeTensors<K> tensors = standing<K>(1000);
      tensors.parameter.assign(1000, T::stored(1.0f));
      // Half a unit further in the mean.
      const double unit = value<T>(static_cast<std::uint16_t>(T::stored(1.0f) + 1)) - 1.0;
      tensors.gradient.assign(1000, T::stored(static_cast<float>(-unit / 2 / clr_test::group_of(kPlainSgd).lr)));
      clr::Slot slot = tensors.slot(kPlainSgd, {});
      slot.random_key = key;
      isa.kernels->update({}, clr_test::group_of(kPlainSgd), slot, {0, 1000});
      return tensors.parameter;
    };
    const auto first = ones_after(1), again = ones_after(1), other = ones_after(2);
    const auto ups = std::count(first.begin(), first.end(), T::stored(1.0f) + 1);
    INFO(std::string(isa.name), ", up ", ups);
    CHECK((first == again));
    CHECK((first != other));
    CHECK(ups > 430);  // 4.4 standard deviations
    CHECK(ups < 570);
  }
}
