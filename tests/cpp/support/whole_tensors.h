// Tensors of one slot with everything that a slot may have, for a kernel and for the reference; and the cases tried.
#pragma once

#include <string>
#include <vector>

#include "core/random.h"
#include "cpu/isa.h"
#include "support/isas.h"
#include "support/whole_reference.h"

namespace clr_test {

constexpr std::uint64_t kRandomKey = 0x1234567890abcdefu;

// The kinds that the optimizer makes, with names for the tests' own.
struct Float32Own : Kind<Float32, Float32, clr::Storage::nearest> {};
struct Float32Bfloat16 : Kind<Float32, Bfloat16, clr::Storage::nearest> {};
struct Float64Own : Kind<Float64, Float64, clr::Storage::nearest> {};
struct Bfloat16Own : Kind<Bfloat16, Bfloat16, clr::Storage::nearest> {};
struct Bfloat16Float32 : Kind<Bfloat16, Float32, clr::Storage::nearest> {};
struct Bfloat16Stochastic : Kind<Bfloat16, Bfloat16, clr::Storage::stochastic> {};
struct Bfloat16StochasticFloat32 : Kind<Bfloat16, Float32, clr::Storage::stochastic> {};
struct Bfloat16Split : Kind<Bfloat16, Bfloat16, clr::Storage::split> {};
struct Bfloat16SplitFloat32 : Kind<Bfloat16, Float32, clr::Storage::split> {};
struct Bfloat16Master : Kind<Bfloat16, Bfloat16, clr::Storage::master> {};
struct Bfloat16MasterFloat32 : Kind<Bfloat16, Float32, clr::Storage::master> {};
struct Float16Own : Kind<Float16, Float16, clr::Storage::nearest> {};
struct Float16Float32 : Kind<Float16, Float32, clr::Storage::nearest> {};
struct Float16Stochastic : Kind<Float16, Float16, clr::Storage::stochastic> {};
struct Float16StochasticFloat32 : Kind<Float16, Float32, clr::Storage::stochastic> {};
struct Float16Split : Kind<Float16, Float16, clr::Storage::split> {};
struct Float16SplitFloat32 : Kind<Float16, Float32, clr::Storage::split> {};
struct Float16Master : Kind<Float16, Float16, clr::Storage::master> {};
struct Float16MasterFloat32 : Kind<Float16, Float32, clr::Storage::master> {};

#define CLR_SPLIT_KINDS \
  clr_test::Bfloat16Split, clr_test::Bfloat16SplitFloat32, clr_test::Float16Split, clr_test::Float16SplitFloat32
#define CLR_MASTER_KINDS \
  clr_test::Bfloat16Master, clr_test::Bfloat16MasterFloat32, clr_test::Float16Master, clr_test::Float16MasterFloat32
#define CLR_STOCHASTIC_KINDS                                                                      \
  clr_test::Bfloat16Stochastic, clr_test::Bfloat16StochasticFloat32, clr_test::Float16Stochastic, \
      clr_test::Float16StochasticFloat32
#define CLR_PLAIN_KINDS clr_test::Float32Own, clr_test::Float64Own, clr_test::Bfloat16Own, clr_test::Float16Own
#define CLR_ALL_KINDS                                                                              \
  CLR_PLAIN_KINDS, clr_test::Float32Bfloat16, clr_test::Bfloat16Float32, clr_test::Float16Float32, \
      CLR_STOCHASTIC_KINDS, CLR_SPLIT_KINDS, CLR_MASTER_KINDS

template <class K>
clr::Slot slot_of(const Variant& v, const Around& around, std::size_t size, void* parameter, const void* gradient,
                  void* unscaled, void* buffer, void* companion, void* average) {
  const bool has_companion = K::storage == clr::Storage::split || K::storage == clr::Storage::master;
  clr::Slot slot = {parameter,
                    around.has_gradient ? gradient : nullptr,
                    v.has_buffer ? buffer : nullptr,
                    static_cast<std::int64_t>(size),
                    0,
                    K::Parameter::dtype,
                    v.first};
  slot.buffer_dtype = K::Buffer::dtype;
  slot.storage = K::storage;
  slot.first_average = around.first_average;
  slot.average = around.has_average ? average : nullptr;
  slot.companion = has_companion ? companion : nullptr;
  slot.unscaled = around.writes_unscaled ? unscaled : nullptr;
  slot.trust_ratio = v.trust_ratio;
  slot.random_key = K::storage == clr::Storage::stochastic ? kRandomKey : 0;
  return slot;
}

inline void update_slot(const clr::Isa& isa, const Variant& v, const Around& around, const clr::Slot& slot,
                        std::size_t begin, std::size_t end) {
  clr::GroupValues group = group_of(v);
  group.averages = around.has_average;
  group.average_weight = around.average_weight;
  isa.kernels->update(around.gradients, group, slot,
                      {static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end)});
}

template <class K>
struct WholeTensors {
  using T = typename K::Parameter;
  std::vector<typename T::Element> parameter, gradient, unscaled;
  std::vector<typename K::Buffer::Element> buffer;
  std::vector<typename K::Companion::Element> companion, average;

  // Of every four companions of 16-bit parameters one belongs to another parameter: that was changed since.
  WholeTensors(std::size_t size, Random& random, unsigned rarity)
      : parameter(numbers<T>(size, random, rarity)),
        gradient(numbers<T>(size, random, rarity)),
        unscaled(numbers<T>(size, random, 0)),
        buffer(numbers<typename K::Buffer>(size, random, rarity)),
        companion(numbers<typename K::Companion>(size, random, rarity)),
        average(numbers<typename K::Companion>(size, random, rarity)) {
    for (std::size_t i = 0; i < size; ++i) {
      Number<K> n = number(i);
      if (random.below(4) != 0) keep<K>(static_cast<typename T::Real>(random.signed_unit()), 0, n);
      put(i, n);
    }
  }

  std::size_t size() const { return parameter.size(); }

  Number<K> number(std::size_t i) const {
    return {parameter[i], gradient[i], unscaled[i], buffer[i], companion[i], average[i]};
  }
  void put(std::size_t i, const Number<K>& n) {
    parameter[i] = n.parameter, unscaled[i] = n.unscaled, buffer[i] = n.buffer;
    companion[i] = n.companion, average[i] = n.average;
  }

  clr::Slot slot(const Variant& v, const Around& around) {
    return slot_of<K>(v, around, size(), parameter.data(), gradient.data(), unscaled.data(), buffer.data(),
                      companion.data(), average.data());
  }

  void update_by_reference(bool fused, const Variant& v, const Around& around, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      Number<K> n = number(i);
      reference_whole<K>(fused, group_of(v), v, around, clr::random_bits(kRandomKey, i), n);
      put(i, n);
    }
  }

  void update(const clr::Isa& isa, const Variant& v, const Around& around, std::size_t begin, std::size_t end) {
    update_slot(isa, v, around, slot(v, around), begin, end);
  }
};

template <class T>
std::string array_difference(const char* name, const std::vector<typename T::Element>& got,
                             const std::vector<typename T::Element>& want) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (!T::same(got[i], want[i])) return std::string(name) + " " + std::to_string(i) + ", ";
  }
  return "";
}

// The first difference of each array, or "".
template <class K>
std::string differences(const WholeTensors<K>& got, const WholeTensors<K>& want) {
  using T = typename K::Parameter;
  return array_difference<T>("parameter", got.parameter, want.parameter) +
         array_difference<T>("gradient", got.gradient, want.gradient) +
         array_difference<T>("unscaled", got.unscaled, want.unscaled) +
         array_difference<typename K::Buffer>("buffer", got.buffer, want.buffer) +
         array_difference<typename K::Companion>("companion", got.companion, want.companion) +
         array_difference<typename K::Companion>("average", got.average, want.average);
}

// Every way with gradients, with and without an average of every sort.
inline std::vector<Around> arounds() {
  const double nan = std::nan("");
  const clr::GradientValues gradients[] = {{1.0, 1.0, 0.0},   {0.3, 1.0, 0.0},         {1.0, 0.7, 0.0}, {0.3, 0.7, 0.0},
                                           {0.3, 0.7, 0.125}, {1.0, 1.0, 0.25},        {1.0, nan, 0.0}, {0.3, 0.0, 0.0},
                                           {nan, 1.0, 0.25},  {0x1p-16, 1.0, HUGE_VAL}};
  std::vector<Around> all;
  for (const clr::GradientValues& values : gradients) {
    Around around;
    around.gradients = values;
    all.push_back(around);
    around.writes_unscaled = true;
    all.push_back(around);
  }
  for (const double weight : {0.0, 0.1, 0.4999, 0.5, 0.9, 1.0}) {
    Around around;
    around.has_average = true;
    around.average_weight = weight;
    all.push_back(around);
    around.gradients.scale = 0.3;
    around.writes_unscaled = true;
    around.first_average = weight == 0.1;
    all.push_back(around);
    around.has_gradient = false;
    all.push_back(around);
  }
  return all;
}

inline std::string described(const Around& a) {
  return "scale=" + std::to_string(a.gradients.scale) +
         ", clip_coefficient=" + std::to_string(a.gradients.clip_coefficient) +
         ", limit=" + std::to_string(a.gradients.limit) + (a.has_gradient ? "" : ", no gradient") +
         (a.writes_unscaled ? ", writes unscaled" : "") +
         (a.has_average ? ", average_weight=" + std::to_string(a.average_weight) : "") +
         (a.first_average ? ", first average" : "");
}

// All variants, each once more with a trust ratio.
inline std::vector<Variant> whole_variants() {
  std::vector<Variant> all = variants();
  const std::size_t count = all.size();
  for (std::size_t i = 0; i < count; ++i) {
    all.push_back(all[i]);
    all.back().trust_ratio = 0.037;
  }
  return all;
}

}  // namespace clr_test
