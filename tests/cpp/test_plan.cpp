// Cuts of the work list and the search for overlaps.
#include <doctest/doctest.h>

#include <vector>

#include "kernel/plan.h"
#include "support/bits.h"

using clr::Cut;
using clr::DType;
using clr::Slot;
using clr::StepPlan;
using clr_test::Random;

namespace {

constexpr DType kTypes[] = {DType::float32, DType::float64, DType::bfloat16, DType::float16};

// Parameters in one block of memory, each at a random place of the alignment of its type.
class Work {
 public:
  Work(Random& random, std::size_t tensors, std::uint64_t most_elements) : memory_(tensors * (most_elements + 16) + 1) {
    auto* next = reinterpret_cast<unsigned char*>(memory_.data());
    for (std::size_t i = 0; i < tensors; ++i) {
      const DType dtype = kTypes[random.below(4)];
      const auto size = static_cast<std::int64_t>(random.below(4) == 0 ? 0 : random.below(most_elements + 1));
      const std::int64_t width = clr::size_of(dtype);
      unsigned char* const parameter = next + random.below(8) * static_cast<std::uint64_t>(width);
      plan.slots.push_back({parameter, nullptr, nullptr, size, 0, dtype, true});
      next += 64 + (static_cast<std::uint64_t>(size * width) + 7) / 8 * 8;
    }
  }
  StepPlan plan;

 private:
  std::vector<double> memory_;
};

// How often each element lies between two neighbouring cuts, as run_between reads them.
std::vector<std::vector<int>> coverage(const StepPlan& plan, const std::vector<Cut>& cuts) {
  std::vector<std::vector<int>> count;
  for (const Slot& slot : plan.slots) count.emplace_back(static_cast<std::size_t>(slot.size));
  for (std::size_t part = 0; part + 1 < cuts.size(); ++part) {
    const Cut from = cuts[part], to = cuts[part + 1];
    for (std::size_t s = from.slot; s < plan.slots.size() && s <= to.slot; ++s) {
      const std::int64_t begin = s == from.slot ? from.element : 0;
      const std::int64_t end = s == to.slot ? to.element : plan.slots[s].size;
      for (std::int64_t i = begin; i < end; ++i) ++count[s][static_cast<std::size_t>(i)];
    }
  }
  return count;
}

bool is_cache_line_start(const Slot& slot, std::int64_t element) {
  const auto address = reinterpret_cast<std::uintptr_t>(slot.parameter) +
                       static_cast<std::uintptr_t>(element * clr::size_of(slot.dtype));
  return address % 64 == 0;
}

Slot float_slot(void* parameter, std::int64_t size, void* buffer = nullptr) {
  return {parameter, nullptr, buffer, size, 0, DType::float32, true};
}

}  // namespace

TEST_CASE("plan: any number of parts covers every element once") {
  Random random(1);
  std::vector<Cut> cuts;
  for (int i = 0; i < 400; ++i) {
    Work work(random, random.below(12), random.below(3) == 0 ? 5 : 300);
    const int parts = 1 + static_cast<int>(random.below(40));
    work.plan.cut(parts, cuts);
    CAPTURE(i);
    CAPTURE(parts);
    REQUIRE(cuts.size() == static_cast<std::size_t>(parts) + 1);
    bool once = true;
    for (const auto& slot : coverage(work.plan, cuts)) {
      for (const int n : slot) once = once && n == 1;
    }
    CHECK(once);
  }
}

TEST_CASE("plan: parts meet on cache lines or between tensors") {
  Random random(2);
  std::vector<Cut> cuts;
  for (int i = 0; i < 400; ++i) {
    Work work(random, 1 + random.below(6), 500);
    work.plan.cut(1 + static_cast<int>(random.below(9)), cuts);
    for (const Cut& cut : cuts) {
      if (cut.slot == work.plan.slots.size()) continue;
      const Slot& slot = work.plan.slots[cut.slot];
      CAPTURE(cut.slot);
      CAPTURE(cut.element);
      CHECK((cut.element == 0 || cut.element == slot.size || is_cache_line_start(slot, cut.element)));
    }
  }
}

TEST_CASE("plan: parts are about equal in bytes") {
  std::vector<float> a(10007), b(3), c(50021);
  StepPlan plan;
  for (auto* x : {&a, &b, &c}) plan.slots.push_back(float_slot(x->data(), static_cast<std::int64_t>(x->size())));
  std::vector<Cut> cuts;
  for (const int parts : {1, 2, 3, 7, 16}) {
    plan.cut(parts, cuts);
    const auto count = coverage(plan, cuts);
    for (int part = 0; part < parts; ++part) {
      const std::vector<Cut> one = {cuts[static_cast<std::size_t>(part)], cuts[static_cast<std::size_t>(part) + 1]};
      std::int64_t bytes = 0;
      for (const auto& slot : coverage(plan, one)) {
        for (const int n : slot) bytes += 4 * n;
      }
      CAPTURE(parts);
      CAPTURE(part);
      // A line at each end, and the last part takes what a division by `parts` leaves.
      CHECK(std::abs(static_cast<double>(bytes - plan.parameter_bytes() / parts)) <= 2 * 64 + parts);
    }
  }
}

TEST_CASE("plan: an empty work list and empty tensors") {
  std::vector<Cut> cuts;
  StepPlan nothing;
  nothing.cut(3, cuts);
  CHECK(cuts.size() == 4);
  CHECK_FALSE(nothing.has_overlap());
  CHECK(nothing.parameter_bytes() == 0);
  StepPlan empty;
  empty.slots = {float_slot(nullptr, 0), float_slot(nullptr, 0)};
  empty.cut(2, cuts);
  CHECK(cuts.back().slot == 2);
  CHECK_FALSE(empty.has_overlap());
}

TEST_CASE("plan: overlap is found between parameters and between parameters and buffers") {
  std::vector<float> x(64);
  float* const p = x.data();
  StepPlan plan;
  plan.slots = {float_slot(p, 16), float_slot(p + 16, 16, p + 32)};
  CHECK_FALSE(plan.has_overlap());
  plan.slots = {float_slot(p, 17), float_slot(p + 16, 16)};
  CHECK(plan.has_overlap());
  plan.slots = {float_slot(p, 16, p + 24), float_slot(p + 16, 16)};
  CHECK(plan.has_overlap());
  plan.slots = {float_slot(p, 16, p + 15)};
  CHECK(plan.has_overlap());
  plan.slots = {float_slot(p, 16), float_slot(p, 16)};
  CHECK(plan.has_overlap());
  plan.slots = {float_slot(p + 8, 0), float_slot(p, 16)};
  CHECK_FALSE(plan.has_overlap());
}

TEST_CASE("plan: a small range inside a large one is found even with another between their starts") {
  std::vector<float> x(64);
  float* const p = x.data();
  StepPlan plan;
  plan.slots = {float_slot(p, 40), float_slot(p + 4, 2), float_slot(p + 30, 4)};
  CHECK(plan.has_overlap());
}

// Every array that a slot writes, against the parameter of another slot and against each other.
TEST_CASE("plan: overlap is found in everything that a slot writes") {
  std::vector<float> x(128);
  float* const p = x.data();
  void* Slot::* const arrays[] = {&Slot::buffer, &Slot::average, &Slot::companion, &Slot::unscaled};
  for (void* Slot::* const array : arrays) {
    StepPlan plan;
    plan.slots = {float_slot(p, 16), float_slot(p + 16, 16)};
    plan.slots[0].*array = p + 32;
    CHECK_FALSE(plan.has_overlap());
    plan.slots[0].*array = p + 31;
    CHECK(plan.has_overlap());
    for (void* Slot::* const other : arrays) {
      plan.slots[0].*array = p + 32;
      plan.slots[1].*other = p + 48;
      CHECK_FALSE(plan.has_overlap());
      plan.slots[1].*other = p + 47;
      CHECK(plan.has_overlap());
      plan.slots[1].*other = nullptr;
    }
  }
}

TEST_CASE("plan: gradients are read and may be shared or written back in place") {
  std::vector<float> x(64);
  float* const p = x.data();
  StepPlan plan;
  plan.slots = {float_slot(p, 16), float_slot(p + 16, 16)};
  plan.slots[0].gradient = plan.slots[1].gradient = p + 32;
  CHECK_FALSE(plan.has_overlap());
  plan.slots[0].unscaled = p + 32;
  CHECK_FALSE(plan.has_overlap());
  plan.slots[1].unscaled = p + 32;
  CHECK(plan.has_overlap());
}

// In bytes behind a parameter of 16 elements of 2 bytes each.
TEST_CASE("plan: averages companions and buffers are as long as their dtypes say") {
  std::vector<float> x(64);
  char* const bytes = reinterpret_cast<char*>(x.data());
  const auto length = [&](void* Slot::* array, clr::Storage storage, DType buffer) {
    StepPlan plan;
    Slot slot = {bytes, nullptr, nullptr, 16, 0, DType::bfloat16, true};
    slot.storage = storage;
    slot.buffer_dtype = buffer;
    slot.*array = bytes + 32;
    std::int64_t most = 0;
    for (std::int64_t i = 0; i <= 128; i += 4) {
      plan.slots = {slot, float_slot(bytes + 32 + i, 1)};
      if (plan.has_overlap()) most = i + 4;
    }
    return most;
  };
  for (const clr::Storage storage : {clr::Storage::nearest, clr::Storage::stochastic, clr::Storage::split}) {
    CHECK(length(&Slot::average, storage, DType::float32) == 32);
    CHECK(length(&Slot::companion, storage, DType::float32) == 32);
  }
  CHECK(length(&Slot::average, clr::Storage::master, DType::bfloat16) == 64);
  CHECK(length(&Slot::companion, clr::Storage::master, DType::bfloat16) == 64);
  CHECK(length(&Slot::unscaled, clr::Storage::master, DType::float32) == 32);
  CHECK(length(&Slot::buffer, clr::Storage::nearest, DType::bfloat16) == 32);
  CHECK(length(&Slot::buffer, clr::Storage::nearest, DType::float32) == 64);
}
