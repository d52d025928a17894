// A plan for the pass over gradients: what it must sum and what it must leave out, in slots of no, one and many chunks.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/norm.h"
#include "support/bits.h"
#include "support/update_reference.h"

namespace clr_test {

class NormWork {
 public:
  clr::StepPlan plan;

  // About a million elements.
  NormWork() {
    Random random(1);
    plan.groups = {{0.1, 0.9, 0.0, 0.0, false, false}};
    const std::int64_t chunk = clr::kNormChunk;
    const std::int64_t sizes[] = {0, 1, 300, chunk - 1, chunk, chunk + 1, 2 * chunk, 5 * chunk + 77, 15};
    for (int i = 0; i < 36; ++i) {
      const auto dtype = static_cast<clr::DType>(i % 4);
      const std::int64_t size = sizes[i % 9];
      void* const parameter = numbers(size, dtype, random);
      void* const gradient = i % 7 == 5 ? nullptr : numbers(size, dtype, random);
      clr::Slot slot = {parameter, gradient, nullptr, size, 0, dtype, true};
      slot.trusted = i % 3 != 0;
      if (clr::size_of(dtype) == 2 && i % 2 == 0) {
        slot.storage = clr::Storage::master;
        slot.companion = numbers(size, clr::DType::float32, random);
      }
      plan.slots.push_back(slot);
    }
  }
  NormWork(const NormWork&) = delete;
  NormWork& operator=(const NormWork&) = delete;

  // All numbers of an array as doubles.
  static std::vector<double> values(const void* array, clr::DType dtype, std::int64_t size) {
    switch (dtype) {
      case clr::DType::float32:
        return values_of<Float32>(array, size);
      case clr::DType::float64:
        return values_of<Float64>(array, size);
      case clr::DType::bfloat16:
        return values_of<Bfloat16>(array, size);
      case clr::DType::float16:
        return values_of<Float16>(array, size);
    }
    return {};
  }

 private:
  template <class T>
  static std::vector<double> values_of(const void* array, std::int64_t size) {
    const auto* const elements = static_cast<const typename T::Element*>(array);
    std::vector<double> values;
    for (std::int64_t i = 0; i < size; ++i) values.push_back(static_cast<double>(T::read(elements[i])));
    return values;
  }

  template <class T>
  void* numbers_of(std::int64_t size, Random& random) {
    const auto x = clr_test::numbers<T>(static_cast<std::size_t>(size), random, 0);
    memory_.emplace_back(x.size() + 1);
    if (!x.empty()) std::memcpy(memory_.back().data(), x.data(), x.size() * sizeof(typename T::Element));
    return memory_.back().data();
  }

  void* numbers(std::int64_t size, clr::DType dtype, Random& random) {
    return dtype == clr::DType::float32    ? numbers_of<Float32>(size, random)
           : dtype == clr::DType::float64  ? numbers_of<Float64>(size, random)
           : dtype == clr::DType::bfloat16 ? numbers_of<Bfloat16>(size, random)
                                           : numbers_of<Float16>(size, random);
  }

  std::vector<std::vector<double>> memory_;  // of doubles, so that every type is aligned
};

inline bool same(const clr::Norms& a, const clr::Norms& b) {
  const auto same_slot = [](const clr::SlotNorms& x, const clr::SlotNorms& y) {
    return same(x.parameter, y.parameter) && same(x.gradient, y.gradient);
  };
  return same(a.total.squares.hi, b.total.squares.hi) && same(a.total.squares.lo, b.total.squares.lo) &&
         a.total.finite == b.total.finite &&
         std::equal(a.slots.begin(), a.slots.end(), b.slots.begin(), b.slots.end(), same_slot);
}

}  // namespace clr_test
