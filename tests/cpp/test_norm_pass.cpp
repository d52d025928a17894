// The pass over a plan: what it counts, what it leaves out, and what it finds.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "support/isas.h"
#include "support/norm_work.h"
#include "support/quad.h"

using clr::Norms;
using clr::Slot;
using clr_test::NormWork;

namespace {

bool master(const Slot& slot) { return slot.storage == clr::Storage::master; }

void put(void* array, clr::DType dtype, std::int64_t at, double x) {
  const auto i = static_cast<std::size_t>(at);
  if (dtype == clr::DType::float32) static_cast<float*>(array)[i] = static_cast<float>(x);
  if (dtype == clr::DType::float64) static_cast<double*>(array)[i] = x;
  if (dtype == clr::DType::bfloat16) static_cast<std::uint16_t*>(array)[i] = clr_test::kBfloat16.rounded(x);
  if (dtype == clr::DType::float16) static_cast<std::uint16_t*>(array)[i] = clr_test::kFloat16.rounded(x);
}

}  // namespace

TEST_CASE("norm pass: an infinity in any gradient is found and elsewhere does not matter") {
  NormWork work;
  const clr::CpuKernels& kernels = *clr::choose_isa(nullptr).kernels;
  Norms norms, check;
  const auto found = [&] {
    REQUIRE(clr::run_norms(work.plan, kernels, 0.0, norms));
    REQUIRE(clr::run_finite_check(work.plan, kernels, check));
    REQUIRE(norms.total.finite == check.total.finite);
    REQUIRE(std::isfinite(norms.total.squares.hi) == norms.total.finite);
    return !norms.total.finite;
  };
  CHECK_FALSE(found());
  for (const Slot& slot : work.plan.slots) {
    if (slot.size == 0) continue;
    const std::int64_t at = slot.size - 1;
    put(slot.parameter, slot.dtype, at, HUGE_VAL);  // no gradient
    CHECK_FALSE(found());
    put(slot.parameter, slot.dtype, at, 1.0);
    if (slot.gradient == nullptr) continue;
    put(const_cast<void*>(slot.gradient), slot.dtype, at, HUGE_VAL);
    CHECK(found());
    put(const_cast<void*>(slot.gradient), slot.dtype, at, 1.0);
  }
  CHECK_FALSE(found());
}

TEST_CASE("norm pass: scratch keeps its memory and nothing of the last step") {
  NormWork work;
  const clr::CpuKernels& kernels = *clr::choose_isa(nullptr).kernels;
  Norms norms, fresh;
  REQUIRE(clr::run_norms(work.plan, kernels, 0.0, norms));
  const void* const parts = norms.parts.data();
  const void* const slots = norms.slots.data();
  const void* const cuts = norms.cuts.data();
  const void* const first_chunks = norms.first_chunks.data();
  for (Slot& slot : work.plan.slots) slot.trusted = !slot.trusted && slot.size > 10;
  work.plan.slots.pop_back();
  REQUIRE(clr::run_norms(work.plan, kernels, 0.1, norms));
  REQUIRE(clr::run_norms(work.plan, kernels, 0.1, fresh));
  CHECK(clr_test::same(norms, fresh));
  CHECK(norms.parts.data() == parts);
  CHECK(norms.slots.data() == slots);
  CHECK(norms.cuts.data() == cuts);
  CHECK(norms.first_chunks.data() == first_chunks);
}

TEST_CASE("norm pass: a plan of nothing") {
  const clr::CpuKernels& kernels = *clr::choose_isa(nullptr).kernels;
  clr::StepPlan plan;
  Norms norms;
  for (int i = 0; i < 2; ++i) {
    REQUIRE(clr::run_norms(plan, kernels, 0.0, norms));
    CHECK(norms.total.squares.hi == 0.0);
    CHECK(norms.total.finite);
    CHECK(norms.slots.size() == plan.slots.size());
    REQUIRE(clr::run_finite_check(plan, kernels, norms));
    CHECK(norms.total.finite);
    plan.groups = {{0.1, 0.9, 0.0, 0.0, false, false}};
    plan.slots = {{nullptr, nullptr, nullptr, 0, 0, clr::DType::float32, true}};
    plan.slots[0].trusted = true;
  }
}

#if CLR_TEST_QUAD

namespace {

using clr_test::quad;
using clr_test::Quad;

Quad quad_squares(const void* array, clr::DType dtype, std::int64_t size, double limit) {
  Quad sum = quad(0.0);
  for (const double x : NormWork::values(array, dtype, size)) {
    const double within = limit == 0.0 ? x : std::min(std::max(x, -limit), limit);
    sum += quad(within) * quad(within);
  }
  return sum;
}

}  // namespace

TEST_CASE("norm pass: norms of gradients and of trusted parameters and of master weights") {
  NormWork work;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const double limit : {0.0, 0.25}) {
      INFO(std::string(isa.name), ", limit ", limit);
      Norms norms;
      REQUIRE(clr::run_norms(work.plan, *isa.kernels, limit, norms));
      REQUIRE(norms.slots.size() == work.plan.slots.size());
      Quad total = quad(0.0);
      for (std::size_t i = 0; i < work.plan.slots.size(); ++i) {
        const Slot& slot = work.plan.slots[i];
        const bool counts = slot.gradient != nullptr;
        const Quad gradient = counts ? quad_squares(slot.gradient, slot.dtype, slot.size, limit) : quad(0.0);
        total += gradient;
        CAPTURE(i);
        if (!slot.trusted || !counts) {
          CHECK(norms.slots[i].parameter == 0.0);
          CHECK(norms.slots[i].gradient == 0.0);
          continue;
        }
        const Quad parameter = master(slot) ? quad_squares(slot.companion, clr::DType::float32, slot.size, 0.0)
                                            : quad_squares(slot.parameter, slot.dtype, slot.size, 0.0);
        CHECK(clr_test::error_in_ulp(norms.slots[i].gradient, clr_test::quad_root(gradient)) <= 0.5 + 0x1p-30);
        CHECK(clr_test::error_in_ulp(norms.slots[i].parameter, clr_test::quad_root(parameter)) <= 0.5 + 0x1p-30);
      }
      CHECK(clr_test::relative_error_log2(norms.total.squares, total) <= -95);
      CHECK(norms.total.finite);
    }
  }
}

#else

TEST_CASE("norm pass: norms") { MESSAGE("not tested: no 113-bit numbers here"); }

#endif
