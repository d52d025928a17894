// A plan with something to do: many tensors of all types in two groups, with their own memory; plain updates, or with
// everything before and after them.
#pragma once

#include <cstring>
#include <vector>

#include "cpu/step.h"
#include "support/bits.h"
#include "support/update_reference.h"

namespace clr_test {

enum class Updates { plain, whole };

class Model {
 public:
  clr::StepPlan plan;

  // Every fifth tensor is large: 60 tensors are about 100,000 bytes.
  explicit Model(std::size_t tensors, Updates updates = Updates::plain) {
    Random random(1);
    plan.groups = {{0.1, 0.9, 0.0, 1e-4, true, false}, {0.01, 0.8, 0.1, 0.0, false, true}};
    for (std::size_t i = 0; i < tensors; ++i) {
      const auto size = static_cast<std::int64_t>(random.below(i % 5 == 0 ? 4000 : 60));
      const auto dtype = static_cast<clr::DType>(random.below(4));
      void* const parameter = array(size, dtype, random);
      void* const gradient = array(size, dtype, random);
      void* const buffer = array(size, dtype, random);
      const bool has_buffer = random.below(4) != 0;
      plan.slots.push_back({parameter, gradient, has_buffer ? buffer : nullptr, size,
                            static_cast<std::uint32_t>(random.below(2)), dtype, random.below(3) == 0});
      if (updates == Updates::whole) surround(plan.slots.back(), random);
    }
    if (updates == Updates::whole) {
      plan.gradients = {0.3, 0.7, 0.25};
      for (clr::GroupValues& group : plan.groups) group.averages = true, group.average_weight = 0.1;
    }
  }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  void run_serially(const clr::CpuKernels& kernels) { clr::run_between(plan, kernels, {0, 0}, {plan.slots.size(), 0}); }

  bool has_the_bits_of(const Model& other) const {
    for (std::size_t i = 0; i < memory_.size(); ++i) {
      const std::size_t bytes = memory_[i].size() * sizeof(double);
      if (std::memcmp(memory_[i].data(), other.memory_[i].data(), bytes) != 0) return false;
    }
    return true;
  }

 private:
  void* array(std::int64_t size, clr::DType dtype, Random& random) {
    memory_.push_back(filled(static_cast<std::size_t>(size), dtype, random));
    return memory_.back().data();
  }

  // Some of what a slot of its dtype may have.
  void surround(clr::Slot& slot, Random& random) {
    const bool half = clr::size_of(slot.dtype) == 2;
    if (half) slot.storage = static_cast<clr::Storage>(random.below(4));
    const clr::DType companion = clr::companion_dtype(slot.dtype, slot.storage);
    if (half || slot.dtype == clr::DType::float32) {
      const clr::DType other = half ? clr::DType::float32 : clr::DType::bfloat16;
      if (random.below(2) == 0 && slot.buffer != nullptr) {
        slot.buffer_dtype = other;
        slot.buffer = array(slot.size, other, random);
      }
    }
    if (slot.storage == clr::Storage::split || slot.storage == clr::Storage::master) {
      slot.companion = array(slot.size, companion, random);
    }
    slot.random_key = random.bits();
    if (random.below(3) != 0) slot.average = array(slot.size, companion, random);
    slot.first_average = random.below(4) == 0;
    if (random.below(2) == 0) slot.unscaled = array(slot.size, slot.dtype, random);
    if (random.below(5) == 0) slot.gradient = nullptr;
    if (random.below(2) == 0) slot.trust_ratio = random.unit();
  }

  template <class T>
  static void fill(std::vector<double>& array, std::size_t size, Random& random) {
    const auto values = numbers<T>(size, random, 0);
    if (size != 0) std::memcpy(array.data(), values.data(), size * sizeof(typename T::Element));
  }

  static std::vector<double> filled(std::size_t size, clr::DType dtype, Random& random) {
    std::vector<double> array(size + 1);
    if (dtype == clr::DType::float32) fill<Float32>(array, size, random);
    if (dtype == clr::DType::float64) fill<Float64>(array, size, random);
    if (dtype == clr::DType::bfloat16) fill<Bfloat16>(array, size, random);
    if (dtype == clr::DType::float16) fill<Float16>(array, size, random);
    return array;
  }

  std::vector<std::vector<double>> memory_;  // of doubles, so that every type is aligned
};

}  // namespace clr_test
