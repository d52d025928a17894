// The kernel that measures gradients, compiled for the host: the bits of the CPU's pass, down to each chunk.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "cpu/shared_norms.h"
#include "cuda/chunks.h"
#include "cuda_on_host/kernels.h"
#include "cuda_on_host/launch.h"
#include "support/isas.h"
#include "support/norm_work.h"

using clr::NormPart;
using clr::Slot;
using clr_test::NormWork;
using clr_test::same;

namespace {

// What a device has of a plan with one group.
struct Tables {
  std::vector<Slot> slots;
  clr::Chunks chunks;
  std::vector<NormPart> parts;
  std::vector<std::uint32_t> ended;
  std::vector<clr::SlotLengths> lengths;
  clr::GroupSettings settings{};
  clr::DeviceState state{};

  explicit Tables(const clr::StepPlan& plan) : slots(plan.slots) {
    settings.trust_coefficient = 0.02;
    settings.trust_eps = 1e-8;
    settings.weight_decay = 0.25;
    clr::cut_into_chunks(slots, chunks);
    parts.resize(2 * chunks.by_number.size());
    ended.resize(slots.size());
    lengths.resize(slots.size());
  }

  void measure(const clr::DeviceStep& step, unsigned blocks) {
    const clr::DeviceWork work = told();
    cuda_on_host::launch(blocks, clr::kNormThreads, [&] { clr_norm(&state, work, step); });
  }
  void share(const clr::DeviceStep& step) {
    const clr::DeviceWork work = told();
    cuda_on_host::launch(1, clr::kNormThreads, [&] { clr_share(&state, work, step); });
  }

  clr::SharedNumbers shared;

 private:
  clr::DeviceWork told() {
    state.settings = &settings;
    state.group_count = 1;
    clr::DeviceWork work{};
    work.slots = slots.data();
    work.chunks = chunks.by_number.data();
    work.by_size = chunks.by_size.data();
    work.slot_count = static_cast<std::uint32_t>(slots.size());
    work.chunk_count = static_cast<std::uint32_t>(chunks.by_number.size());
    work.parts = parts.data();
    work.first_chunks = chunks.first.data();
    work.ended = ended.data();
    work.lengths = lengths.data();
    work.numbers = shared.numbers;
    work.places = shared.slots.data();
    work.sums = shared.sums.data();
    work.number_count = static_cast<std::uint32_t>(shared.count);
    work.sum_count = static_cast<std::uint32_t>(shared.sums.size());
    return work;
  }
};

// Three sums: slots go into each, or are counted elsewhere; some have their lengths added up, others keep their own.
clr::SharedNumbers shared_by(const clr::StepPlan& plan, std::vector<double>& numbers) {
  clr::SharedNumbers shared;
  std::uint32_t next = clr::kFlagCount;
  for (std::size_t sum = 0; sum < 3; ++sum) {
    shared.sums.push_back(next++);
    for (std::size_t i = sum; i < plan.slots.size(); i += 4) {
      if (sum != 0) next += 2;
    }
  }
  std::vector<std::uint32_t> free = shared.sums;
  for (std::size_t i = 0; i < plan.slots.size(); ++i) {
    const std::size_t sum = i % 4;
    if (sum == 0 || sum == 3) {
      shared.slots.push_back({sum == 0 ? shared.sums[0] : 0, 0});
      continue;
    }
    shared.slots.push_back({i % 5 == 0 ? 0 : shared.sums[sum], free[sum] + 1});
    free[sum] += 2;
  }
  numbers.assign(next, NAN);
  shared.count = numbers.size();
  shared.numbers = numbers.data();
  return shared;
}

bool same_part(const NormPart& a, const NormPart& b) {
  return same(a.squares.hi, b.squares.hi) && same(a.squares.lo, b.squares.lo) && a.finite == b.finite;
}

}  // namespace

TEST_CASE("norm kernel: sums, norms and trust ratios have the bits of the CPU") {
  NormWork work;
  const clr::CpuKernels& kernels = *clr::choose_isa(nullptr).kernels;
  for (const double limit : {0.0, 0.25}) {
    const double scale = 0.3;
    clr::Norms norms;
    REQUIRE(clr::run_norms(work.plan, kernels, limit / scale, norms));
    clr::DeviceStep step{};
    step.gradients = {scale, 1.0, limit};
    step.max_norm = limit == 0.0 ? 2.0 : 0.0;
    step.trusts = true;
    Tables tables(work.plan);
    tables.measure(step, 3);

    const clr::DoubleDouble norm = clr::scaled(clr::square_root(norms.total.squares), scale);
    const double coefficient = limit == 0.0 ? clr::clip_coefficient(norm, step.max_norm) : 1.0;
    CHECK(same(tables.state.norm, norm.hi));
    CHECK(same(tables.state.clip_coefficient, coefficient));
    CHECK(tables.state.finite);
    CHECK(tables.state.ticket == 0);
    for (std::size_t i = 0; i < work.plan.slots.size(); ++i) {
      const Slot& slot = work.plan.slots[i];
      INFO("limit ", limit, ", slot ", i);
      if (slot.trusted) {
        CHECK(same(tables.lengths[i].parameter, norms.slots[i].parameter));
        CHECK(same(tables.lengths[i].gradient, norms.slots[i].gradient));
      }
      for (std::uint64_t j = 0; j < clr::norm_chunks(slot.size); ++j) {
        const std::size_t at = norms.first_chunks[i] + j;
        CHECK(same_part(tables.parts[at], norms.parts[at]));
        if (!slot.trusted || slot.gradient == nullptr) continue;
        CHECK(same_part(tables.parts[norms.chunk_count + at], norms.parts[norms.chunk_count + at]));
      }
    }
  }
}

TEST_CASE("norm kernel: only whether all are finite") {
  NormWork work;
  Tables tables(work.plan);
  tables.measure({}, 2);
  CHECK(tables.state.finite);
  CHECK(tables.state.clip_coefficient == 1.0);
  auto* const last = static_cast<float*>(const_cast<void*>(work.plan.slots[28].gradient));
  REQUIRE(work.plan.slots[28].dtype == clr::DType::float32);
  last[0] = HUGE_VALF;
  tables.measure({}, 2);
  CHECK_FALSE(tables.state.finite);
  CHECK(tables.state.ticket == 0);
}

TEST_CASE("norm kernel: what processes add up has the bits of the CPU, and so has what comes of it") {
  NormWork work;
  const clr::CpuKernels& kernels = *clr::choose_isa(nullptr).kernels;
  const double scale = 0.3;
  clr::Norms norms;
  std::vector<double> numbers, on_device;
  work.plan.shared = shared_by(work.plan, numbers);
  REQUIRE(clr::run_norms(work.plan, kernels, 0.0, norms));
  clr::put_numbers(work.plan, norms);
  clr::DeviceStep step{};
  step.gradients = {scale, 1.0, 0.0};
  step.max_norm = 2.0;
  step.trusts = true;
  Tables tables(work.plan);
  tables.shared = shared_by(work.plan, on_device);
  tables.state.refused = true;
  tables.measure(step, 3);
  REQUIRE(on_device.size() == numbers.size());
  CHECK(std::memcmp(on_device.data(), numbers.data(), numbers.size() * sizeof(double)) == 0);
  CHECK(tables.state.ticket == 0);

  for (const double others : {0.0, 3.0}) {  // what the other processes have found
    for (std::size_t i = clr::kFlagCount; i < numbers.size(); ++i) numbers[i] = on_device[i] += others;
    tables.share(step);
    clr::take_numbers(work.plan.shared, norms);
    const clr::DoubleDouble norm = clr::scaled(clr::square_root(norms.total.squares), scale);
    const double coefficient = clr::clip_coefficient(norm, step.max_norm);
    CHECK(same(tables.state.norm, norm.hi));
    CHECK(same(tables.state.clip_coefficient, coefficient));
    CHECK(tables.state.finite);
    CHECK_FALSE(tables.state.refused);
    for (std::size_t i = 0; i < work.plan.slots.size(); ++i) {
      const Slot& slot = work.plan.slots[i];
      INFO("slot ", i);
      if (slot.trusted) {
        CHECK(same(tables.lengths[i].parameter, norms.slots[i].parameter));
        CHECK(same(tables.lengths[i].gradient, norms.slots[i].gradient));
      }
    }
  }
  on_device[clr::kNonfinite] = 2.0;
  tables.share(step);
  CHECK_FALSE(tables.state.finite);
  const double norm_before = tables.state.norm;
  on_device[clr::kNonfinite] = 0.0;
  numbers[clr::kRefused] = on_device[clr::kRefused] = 1.0;
  on_device[tables.shared.sums[0]] += 1.0;
  tables.share(step);
  CHECK(tables.state.refused);
  CHECK(same(tables.state.norm, norm_before));
  CHECK_THROWS(clr::take_numbers(work.plan.shared, norms));
}

TEST_CASE("norm kernel: a process tells the others of an infinity, also in a gradient that another one counts") {
  NormWork work;
  std::vector<double> numbers, on_device;
  work.plan.shared = shared_by(work.plan, numbers);
  REQUIRE(work.plan.slots[28].dtype == clr::DType::float32);
  work.plan.shared.slots[28].sum = 0;
  auto* const last = static_cast<float*>(const_cast<void*>(work.plan.slots[28].gradient));
  for (const float value : {1.0f, HUGE_VALF}) {
    last[0] = value;
    clr::Norms norms;
    REQUIRE(clr::run_finite_check(work.plan, *clr::choose_isa(nullptr).kernels, norms));
    clr::put_numbers(work.plan, norms);
    Tables tables(work.plan);
    tables.shared = shared_by(work.plan, on_device);
    tables.shared.slots[28].sum = 0;
    tables.measure({}, 2);
    CHECK(on_device[clr::kNonfinite] == (value == 1.0f ? 0.0 : 1.0));
    CHECK(std::memcmp(on_device.data(), numbers.data(), numbers.size() * sizeof(double)) == 0);
  }
}
