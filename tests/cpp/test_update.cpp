// The update of every instruction set against one number at a time with std::fma: the same bits.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support/bits.h"
#include "support/isas.h"
#include "support/update_reference.h"

using clr_test::Random;
using clr_test::Variant;

namespace {

template <class T>
struct Tensors {
  using Element = typename T::Element;
  std::vector<Element> parameter, gradient, buffer;

  Tensors(std::size_t size, Random& random, unsigned rarity)
      : parameter(clr_test::numbers<T>(size, random, rarity)),
        gradient(clr_test::numbers<T>(size, random, rarity)),
        buffer(clr_test::numbers<T>(size, random, rarity)) {}

  clr::Slot slot(const Variant& v) {
    return {parameter.data(),
            gradient.data(),
            v.has_buffer ? buffer.data() : nullptr,
            static_cast<std::int64_t>(parameter.size()),
            0,
            T::dtype,
            v.first};
  }

  void update_by_reference(bool fused, const clr::GroupValues& group, const Variant& v) {
    for (std::size_t i = 0; i < parameter.size(); ++i) {
      clr_test::reference_update<T>(fused, group, v, parameter[i], gradient[i], buffer[i]);
    }
  }
};

template <class T>
std::string first_difference(const Tensors<T>& got, const Tensors<T>& want) {
  for (std::size_t i = 0; i < got.parameter.size(); ++i) {
    if (!T::same(got.parameter[i], want.parameter[i])) return "parameter " + std::to_string(i);
    if (!T::same(got.buffer[i], want.buffer[i])) return "buffer " + std::to_string(i);
    if (got.gradient[i] != want.gradient[i] && T::read(want.gradient[i]) == T::read(want.gradient[i])) {
      return "gradient " + std::to_string(i);
    }
  }
  return "none";
}

// A few steps of every variant.
template <class T>
void check_variants(std::size_t size, unsigned rarity) {
  Random random(size + rarity);
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    const bool fused = clr_test::has_fma(isa);
    for (const Variant& v : clr_test::variants()) {
      Tensors<T> got(size, random, rarity);
      Tensors<T> want = got;
      const clr::GroupValues group = clr_test::group_of(v);
      for (int step = 0; step < 3; ++step) {
        isa.kernels->update({}, group, got.slot(v), {0, static_cast<std::int64_t>(size)});
        want.update_by_reference(fused, group, v);
      }
      INFO(std::string(isa.name), ", ", std::string(T::name), ", size ", size, ", ", described(v));
      CHECK(first_difference(got, want) == "none");
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("update: ordinary numbers", T, clr_test::Float32, clr_test::Float64, clr_test::Bfloat16,
                   clr_test::Float16) {
  for (const std::size_t size : {1u, 5u, 64u, 1003u}) check_variants<T>(size, 0);
}

TEST_CASE_TEMPLATE("update: zeros denormals infinities and NaN among them", T, clr_test::Float32, clr_test::Float64,
                   clr_test::Bfloat16, clr_test::Float16) {
  for (const std::size_t size : {63u, 2000u}) check_variants<T>(size, 3);
}

TEST_CASE("update: rates of zero and beyond float and momenta of 0 and 1") {
  Random random(7);
  const Variant v = {true, false, true, false, 0.0, 0.0};
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const double lr : {0.0, 1e-45, 1e30, 1e300}) {
      for (const double momentum : {0.0, 0.5, 1.0}) {
        const clr::GroupValues group = {lr, momentum, 0.0, 0.0, true, false};
        Tensors<clr_test::Float64> got(100, random, 0);
        Tensors<clr_test::Float64> want = got;
        isa.kernels->update({}, group, got.slot(v), {0, 100});
        want.update_by_reference(clr_test::has_fma(isa), group, v);
        INFO(std::string(isa.name), ", lr=", lr, ", momentum=", momentum);
        CHECK(first_difference(got, want) == "none");
      }
    }
  }
}

TEST_CASE("update: instruction sets with fma give one another's bits") {
  const std::vector<clr::Isa> isas = clr_test::testable_isas();
  Random random(8);
  for (const Variant& v : clr_test::variants()) {
    const Tensors<clr_test::Float32> start(777, random, 5);
    std::vector<Tensors<clr_test::Float32>> results;
    for (const clr::Isa& isa : isas) {
      if (!clr_test::has_fma(isa)) continue;
      results.push_back(start);
      isa.kernels->update({}, clr_test::group_of(v), results.back().slot(v), {0, 777});
    }
    for (const auto& result : results) CHECK(first_difference(result, results.front()) == "none");
  }
}
