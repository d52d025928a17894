// The update with what comes before and after it: every instruction set against one number at a time, the same bits.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support/whole_tensors.h"

using clr_test::Around;
using clr_test::Number;
using clr_test::Random;
using clr_test::Variant;
using clr_test::WholeTensors;

namespace {

constexpr Variant kPlainSgd = {false, false, false, true, 0.0, 0.0};
constexpr Variant kMomentum = {true, false, true, false, 0.0, 5e-4};

template <class K>
void check_all(std::size_t size, unsigned rarity, const std::vector<Variant>& variants) {
  Random random(size + rarity);
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const Variant& v : variants) {
      for (const Around& around : clr_test::arounds()) {
        WholeTensors<K> got(size, random, rarity);
        WholeTensors<K> want = got;
        for (int step = 0; step < 2; ++step) {
          got.update(isa, v, around, 0, size);
          want.update_by_reference(clr_test::has_fma(isa), v, around, 0, size);
        }
        INFO(std::string(isa.name), ", ", clr_test::described(v), ", ", clr_test::described(around));
        CHECK(clr_test::differences(got, want) == "");
      }
    }
  }
}

// One update of one number by every instruction set, without momentum unless said otherwise.
template <class K>
std::vector<Number<K>> updated(Number<K> start, const Around& around, const Variant& v = kPlainSgd) {
  std::vector<Number<K>> all;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    Random random(1);
    WholeTensors<K> tensors(1, random, 0);
    tensors.gradient[0] = start.gradient;
    tensors.put(0, start);
    tensors.update(isa, v, around, 0, 1);
    all.push_back(tensors.number(0));
  }
  return all;
}

Around with_limit(double limit) {
  Around around;
  around.gradients.limit = limit;
  around.gradients.clip_coefficient = 1.0;
  return around;
}

}  // namespace

TEST_CASE_TEMPLATE("whole update: every variant with everything around it", K, CLR_ALL_KINDS) {
  check_all<K>(37, 0, clr_test::whole_variants());
}

TEST_CASE_TEMPLATE("whole update: blocks and lanes and a tail", K, CLR_ALL_KINDS) {
  check_all<K>(2 * 64 + 53, 0, {kMomentum, kPlainSgd});
}

TEST_CASE_TEMPLATE("whole update: zeros denormals infinities and NaN among them", K, CLR_ALL_KINDS) {
  check_all<K>(401, 3, {kMomentum});
}

// p = 0 moves by -lr * g, so it shows the gradient that arrived.
TEST_CASE("whole update: a limit lets NaN through and makes infinities finite") {
  using K = clr_test::Float64Own;
  const double lr = clr_test::group_of(kPlainSgd).lr, inf = HUGE_VAL;
  const double cases[][2] = {{0.25, 0.25}, {0.2500001, 0.25}, {-9.0, -0.25}, {-0.1, -0.1}, {inf, 0.25}, {-inf, -0.25}};
  for (const auto& [gradient, arrives] : cases) {
    for (const Number<K>& n : updated<K>({0.0, gradient, 0.0, 0.0, 0.0, 0.0}, with_limit(0.25))) {
      CHECK(n.parameter == -lr * arrives);
    }
  }
  for (const Number<K>& n : updated<K>({0.0, std::nan(""), 0.0, 0.0, 0.0, 0.0}, with_limit(0.25))) {
    CHECK(clr_test::is_nan(n.parameter));
  }
}

TEST_CASE("whole update: a limit that float32 rounds to zero limits to zero") {
  for (const auto& n : updated<clr_test::Float32Own>({1.0f, 3.0f, 0.0f, 0.0f, 0.0f, 0.0f}, with_limit(1e-60))) {
    CHECK(n.parameter == 1.0f);
  }
}

TEST_CASE("whole update: a coefficient of zero stops finite gradients and one of NaN spoils all") {
  using K = clr_test::Float32Own;
  Around around;
  around.gradients.clip_coefficient = 0.0;
  for (const auto& n : updated<K>({1.5f, 3.0f, 0.0f, 0.0f, 0.0f, 0.0f}, around)) CHECK(n.parameter == 1.5f);
  for (const auto& n : updated<K>({1.5f, HUGE_VALF, 0.0f, 0.0f, 0.0f, 0.0f}, around)) {
    CHECK(clr_test::is_nan(n.parameter));
  }
  around.gradients.clip_coefficient = std::nan("");
  for (const auto& n : updated<K>({1.5f, 3.0f, 0.0f, 0.0f, 0.0f, 0.0f}, around)) CHECK(clr_test::is_nan(n.parameter));
}

// 3 * 0.7 and 4097 * 0.7 are not numbers of the formats. What is clipped is the product before that rounding.
TEST_CASE("whole update: the gradient written back is unscaled and not clipped and rounded once") {
  Around around;
  around.gradients = {0.7, 0.5, 0.01};
  around.writes_unscaled = true;
  for (const auto& n : updated<clr_test::Float32Own>({1.0f, 3.0f, 0.0f, 0.0f, 0.0f, 0.0f}, around)) {
    CHECK(n.unscaled == 0.7f * 3.0f);
    CHECK(n.gradient == 3.0f);
  }
  const auto three = clr_test::kBfloat16.stored(3.0f);
  for (const auto& n : updated<clr_test::Bfloat16Own>({0, three, 0, 0, 0, 0}, around)) {
    CHECK(n.unscaled == clr_test::kBfloat16.stored(0.7f * 3.0f));
  }
}

TEST_CASE("whole update: the gradient may be written back where it was read") {
  using K = clr_test::Float32Own;
  Around around;
  around.gradients.scale = 0.3;
  around.writes_unscaled = true;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    Random random(9);
    WholeTensors<K> apart(181, random, 0);
    WholeTensors<K> in_place = apart;
    apart.update(isa, kMomentum, around, 0, 181);
    clr::Slot slot = in_place.slot(kMomentum, around);
    slot.unscaled = in_place.gradient.data();
    isa.kernels->update(around.gradients, clr_test::group_of(kMomentum), slot, {0, 181});
    CHECK((in_place.gradient == apart.unscaled));
    CHECK((in_place.parameter == apart.parameter));
    CHECK((in_place.buffer == apart.buffer));
  }
}

TEST_CASE_TEMPLATE("whole update: averages of weight 0 and 1 and the first one", K, CLR_ALL_KINDS) {
  Random random(4);
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const bool has_gradient : {true, false}) {
      const WholeTensors<K> start(150, random, 0);
      Around around;
      around.has_average = true;
      around.has_gradient = has_gradient;
      WholeTensors<K> first = start, none = start, all = start;
      around.average_weight = 1.0;
      all.update(isa, kMomentum, around, 0, 150);
      around.average_weight = 0.0;
      none.update(isa, kMomentum, around, 0, 150);
      around.first_average = true;
      first.update(isa, kMomentum, around, 0, 150);
      INFO(std::string(isa.name), ", gradient ", has_gradient);
      CHECK((none.average == start.average));
      CHECK((all.average == first.average));
      // The weight that is kept, as it lies in memory; but a master weight whose copy was changed counts no more.
      if constexpr (K::storage != clr::Storage::master) {
        CHECK((first.average == first.parameter));
      } else if (has_gradient) {
        CHECK((first.average == first.companion));
      }
    }
  }
}

TEST_CASE_TEMPLATE("whole update: without a gradient nothing but the average moves", K, CLR_ALL_KINDS) {
  Random random(5);
  Around around;
  around.has_gradient = false;
  around.writes_unscaled = true;
  around.has_average = true;
  around.average_weight = 0.3;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    WholeTensors<K> got(150, random, 0);
    const WholeTensors<K> start = got;
    got.update(isa, kMomentum, around, 0, 150);
    CHECK((got.average != start.average));
    got.average = start.average;
    CHECK(clr_test::differences(got, start) == "");
  }
}

TEST_CASE_TEMPLATE("whole update: the plain loop and the whole one give the same bits", K, CLR_PLAIN_KINDS) {
  Around plain, whole;
  whole.has_average = true;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const Variant& v : clr_test::whole_variants()) {
      Random random(6);
      WholeTensors<K> a(181, random, 5);
      WholeTensors<K> b = a;
      REQUIRE(clr::is_bare_update(plain.gradients, a.slot(v, plain)));
      REQUIRE_FALSE(clr::is_bare_update(whole.gradients, b.slot(v, whole)));
      a.update(isa, v, plain, 0, 181);
      b.update(isa, v, whole, 0, 181);
      b.average = a.average;
      INFO(std::string(isa.name), ", ", clr_test::described(v));
      CHECK(clr_test::differences(a, b) == "");
    }
  }
}

TEST_CASE("whole update: what is not plain") {
  Random random(7);
  WholeTensors<clr_test::Bfloat16Own> tensors(3, random, 0);
  const clr::Slot slot = tensors.slot(kMomentum, {});
  const clr::GradientValues none;
  CHECK(clr::is_bare_update(none, slot));
  for (const clr::GradientValues& values : {clr::GradientValues{0.5, 1, 0}, {1, 0.5, 0}, {1, 1, 0.5}}) {
    CHECK_FALSE(clr::is_bare_update(values, slot));
  }
  const auto changed = [&](auto change) {
    clr::Slot other = slot;
    change(other);
    return !clr::is_bare_update(none, other);
  };
  CHECK(changed([](clr::Slot& s) { s.gradient = nullptr; }));
  CHECK(changed([&](clr::Slot& s) { s.average = tensors.average.data(); }));
  CHECK(changed([&](clr::Slot& s) { s.unscaled = tensors.unscaled.data(); }));
  CHECK(changed([](clr::Slot& s) { s.buffer_dtype = clr::DType::float32; }));
  CHECK(changed([](clr::Slot& s) { s.gradient_dtype = clr::DType::float32; }));
  CHECK(changed([](clr::Slot& s) { s.storage = clr::Storage::stochastic; }));
  CHECK(changed([](clr::Slot& s) { s.storage = clr::Storage::split; }));
  CHECK(changed([](clr::Slot& s) { s.storage = clr::Storage::master; }));
}

namespace {

// Numbers of dtype G that K's parameter has too, infinities among them, in both dtypes.
template <class K, class G>
std::vector<typename G::Element> common_gradient(WholeTensors<K>& tensors, Random& random) {
  using T = typename K::Parameter;
  auto gradient = clr_test::numbers<G>(tensors.size(), random, 5);
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    auto x = static_cast<typename T::Real>(G::read(gradient[i]));
    if (!(T::read(T::stored(x)) == x)) x = static_cast<typename T::Real>(random.below(127)) / 64;
    gradient[i] = G::stored(static_cast<typename G::Real>(x));
    tensors.gradient[i] = T::stored(x);
  }
  return gradient;
}

// A gradient gives the same update in either dtype. Unscaled it is rounded to its own.
template <class K, class G>
void check_gradient_of() {
  using T = typename K::Parameter;
  if (G::dtype == T::dtype) return;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const Around& around : clr_test::arounds()) {
      Random random(11);
      WholeTensors<K> want(181, random, 5);
      const auto gradient = common_gradient<K, G>(want, random);
      auto unscaled = clr_test::numbers<G>(181, random, 0);
      WholeTensors<K> got = want;
      clr::Slot slot = got.slot(kMomentum, around);
      slot.gradient_dtype = G::dtype;
      if (slot.gradient != nullptr) slot.gradient = gradient.data();
      if (slot.unscaled != nullptr) slot.unscaled = unscaled.data();
      clr_test::update_slot(isa, kMomentum, around, slot, 0, 181);
      want.update(isa, kMomentum, around, 0, 181);
      INFO(std::string(isa.name), ", ", std::string(G::name), ", ", clr_test::described(around));
      for (std::size_t i = 0; i < 181 && slot.unscaled != nullptr && slot.gradient != nullptr; ++i) {
        const auto scale = static_cast<typename T::Real>(around.gradients.scale);
        const auto x = static_cast<typename T::Real>(G::read(gradient[i])) * scale;
        CHECK(G::same(unscaled[i], G::stored(static_cast<typename G::Real>(x))));
      }
      want.unscaled = got.unscaled;
      CHECK(clr_test::differences(got, want) == "");
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("whole update: gradients of another dtype", K, CLR_ALL_KINDS) {
  check_gradient_of<K, clr_test::Float32>();
  check_gradient_of<K, clr_test::Bfloat16>();
  check_gradient_of<K, clr_test::Float16>();
}

TEST_CASE_TEMPLATE("whole update: instruction sets with fma give one another's bits", K, CLR_ALL_KINDS) {
  for (const Around& around : clr_test::arounds()) {
    Random random(8);
    const WholeTensors<K> start(777, random, 5);
    std::vector<WholeTensors<K>> results;
    for (const clr::Isa& isa : clr_test::testable_isas()) {
      if (!clr_test::has_fma(isa)) continue;
      results.push_back(start);
      results.back().update(isa, kMomentum, around, 0, 777);
    }
    INFO(clr_test::described(around));
    for (const auto& result : results) CHECK(clr_test::differences(result, results.front()) == "");
  }
}
