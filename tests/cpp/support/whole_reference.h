// The update with all that may come before and after it, one number at a time: reference_update in the middle, around
// it the formulas of GradScaler.unscale_, clip_grad_norm_, clip_grad_value_, torch.lerp and of clr::Storage.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "core/slot.h"
#include "support/half.h"
#include "support/stochastic_reference.h"
#include "support/update_reference.h"

namespace clr_test {

// The types of a parameter and of its momentum buffer, and how the parameter is kept.
template <class T, class B, clr::Storage how>
struct Kind {
  using Parameter = T;
  using Buffer = B;
  // Of what is kept beside the parameter, and of the average.
  using Companion = std::conditional_t<how == clr::Storage::master, Float32, T>;
  static constexpr clr::Storage storage = how;
};

// One element of every array of a slot.
template <class K>
struct Number {
  using T = typename K::Parameter;
  typename T::Element parameter, gradient, unscaled;
  typename K::Buffer::Element buffer;
  typename K::Companion::Element companion, average;
};

// What is asked for besides the update.
struct Around {
  clr::GradientValues gradients;
  bool has_gradient = true, writes_unscaled = false;
  bool has_average = false, first_average = false;
  double average_weight = 0.0;
};

// Half the distance from a finite number of the format to its neighbour on the side of `towards`. Beyond the largest
// number the next one is thought as far away as the one before.
inline double half_unit(const HalfFormat& format, std::uint16_t bits, double towards) {
  const auto magnitude = static_cast<std::uint16_t>(bits & 0x7fff);
  const double number = format.value(magnitude);
  const double below = magnitude == 0 ? -format.value(1) : format.value(static_cast<std::uint16_t>(magnitude - 1));
  const double above = format.value(static_cast<std::uint16_t>(magnitude + 1));
  const bool outwards = std::signbit(towards) == ((bits & 0x8000) != 0);
  return (outwards && above != HUGE_VAL ? above - number : number - below) / 2;
}

// The weight that a parameter and what is kept beside it stand for.
template <class K>
typename K::Parameter::Real weight_of(const Number<K>& n) {
  using T = typename K::Parameter;
  const auto parameter = T::read(n.parameter);
  if constexpr (K::storage == clr::Storage::split) {
    const float rest = T::read(n.companion);
    const bool finite = std::isfinite(parameter) && std::isfinite(rest);
    const bool belongs = finite && std::fabs(rest) <= half_unit(T::format, n.parameter, rest);
    return belongs ? parameter + rest : parameter;
  } else if constexpr (K::storage == clr::Storage::master) {
    return T::read(T::stored(n.companion)) == parameter ? n.companion : parameter;
  } else {
    return parameter;
  }
}

template <class K>
void keep(typename K::Parameter::Real p, std::uint32_t random, Number<K>& n) {
  using T = typename K::Parameter;
  if constexpr (K::storage == clr::Storage::stochastic) {
    using Chances = std::conditional_t<T::dtype == clr::DType::float16, Float16Chances, Bfloat16Chances>;
    n.parameter = stochastically_rounded<Chances>(p, random);
  } else {
    n.parameter = T::stored(p);
  }
  if constexpr (K::storage == clr::Storage::split) n.companion = T::stored(p - T::read(n.parameter));
  if constexpr (K::storage == clr::Storage::master) n.companion = p;
}

// torch.lerp(average, p, weight)
template <class Real>
Real reference_average(bool fused, Real weight, Real average, Real p) {
  return weight < static_cast<Real>(0.5) ? fma_or_not<Real>(fused, weight, p - average, average)
                                         : fma_or_not<Real>(fused, -(1 - weight), p - average, p);
}

// torch.clamp(g, -limit, limit): NaN stays.
template <class Real>
Real reference_clamp(Real g, Real limit) {
  if (g > limit) return limit;
  return g < -limit ? -limit : g;
}

template <class K>
void reference_whole(bool fused, const clr::GroupValues& group, const Variant& v, const Around& around,
                     std::uint32_t random, Number<K>& n) {
  using T = typename K::Parameter;
  using Real = typename T::Real;
  // The arithmetic without a rounding of what is stored.
  using Plain = std::conditional_t<std::is_same_v<Real, double>, Float64, Float32>;
  Real p = weight_of<K>(n);
  if (around.has_gradient) {
    Real g = static_cast<Real>(around.gradients.scale) * T::read(n.gradient);
    if (around.writes_unscaled) n.unscaled = T::stored(g);
    g = static_cast<Real>(around.gradients.clip_coefficient) * g;
    if (around.gradients.limit != 0) g = reference_clamp(g, static_cast<Real>(around.gradients.limit));
    auto m = static_cast<Real>(K::Buffer::read(n.buffer));
    reference_update<Plain>(fused, group, v, p, g, m);
    keep<K>(p, random, n);
    if (v.has_buffer) n.buffer = K::Buffer::stored(m);
  }
  if (around.has_average) {
    const Real stored = K::storage == clr::Storage::master ? p : T::read(n.parameter);
    const auto weight = static_cast<Real>(around.average_weight);
    const auto average = static_cast<Real>(K::Companion::read(n.average));
    n.average = K::Companion::stored(around.first_average ? stored : reference_average(fused, weight, average, stored));
  }
}

}  // namespace clr_test
