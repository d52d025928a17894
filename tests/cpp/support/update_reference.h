// The update, one number at a time, straight from the formulas of torch.optim.SGD and LARS; and the cases it is tried
// on.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "core/slot.h"
#include "support/bits.h"
#include "support/half.h"

namespace clr_test {

// How a tensor's elements are stored (Element) and computed with (Real).
struct Float32 {
  using Element = float;
  using Real = float;
  static constexpr clr::DType dtype = clr::DType::float32;
  static constexpr const char* name = "float32";
  static Real read(Element x) { return x; }
  static Element stored(Real x) { return x; }
  static bool same(Element a, Element b) { return clr_test::same(a, b); }
};

struct Float64 {
  using Element = double;
  using Real = double;
  static constexpr clr::DType dtype = clr::DType::float64;
  static constexpr const char* name = "float64";
  static Real read(Element x) { return x; }
  static Element stored(Real x) { return x; }
  static bool same(Element a, Element b) { return clr_test::same(a, b); }
};

template <const HalfFormat& half_format, clr::DType type>
struct Half {
  static constexpr const HalfFormat& format = half_format;
  using Element = std::uint16_t;
  using Real = float;
  static constexpr clr::DType dtype = type;
  static constexpr const char* name = type == clr::DType::float16 ? "float16" : "bfloat16";
  static Real read(Element x) { return static_cast<float>(format.value(x)); }
  static Element stored(Real x) { return format.stored(x); }
  // A NaN that arithmetic made has the sign that the processor gives it.
  static bool same(Element a, Element b) { return a == b || (format.is_nan(a) && format.is_nan(b)); }
};

struct Float16 : Half<kFloat16, clr::DType::float16> {};
struct Bfloat16 : Half<kBfloat16, clr::DType::bfloat16> {};

// What an update does besides moving the weight.
struct Variant {
  bool nesterov, maximize, has_buffer, first;
  double dampening, weight_decay;
  double trust_ratio = 1.0;  // of LARS
};

inline std::vector<Variant> variants() {
  std::vector<Variant> all;
  for (const bool nesterov : {false, true}) {
    for (const bool maximize : {false, true}) {
      for (const double weight_decay : {0.0, 5e-4}) {
        for (const double dampening : {0.0, 0.1}) {
          all.push_back({nesterov, maximize, true, false, dampening, weight_decay});
          all.push_back({nesterov, maximize, true, true, dampening, weight_decay});
          all.push_back({nesterov, maximize, false, true, dampening, weight_decay});
        }
      }
    }
  }
  return all;
}

inline std::string described(const Variant& v) {
  return std::string(v.nesterov ? "nesterov, " : "") + (v.maximize ? "maximize, " : "") +
         (!v.has_buffer ? "no buffer"
          : v.first     ? "first"
                        : "buffer") +
         ", dampening=" + std::to_string(v.dampening) + ", weight_decay=" + std::to_string(v.weight_decay) +
         (v.trust_ratio != 1.0 ? ", trust_ratio=" + std::to_string(v.trust_ratio) : "");
}

inline clr::GroupValues group_of(const Variant& v) {
  return {0.037, 0.87, v.dampening, v.weight_decay, v.nesterov, v.maximize};
}

// a * b + c with one rounding or with two.
template <class Real>
Real fma_or_not(bool fused, Real a, Real b, Real c) {
  return fused ? std::fma(a, b, c) : a * b + c;
}

template <class T>
void reference_update(bool fused, const clr::GroupValues& group, const Variant& v, typename T::Element& parameter,
                      typename T::Element gradient, typename T::Element& buffer) {
  using Real = typename T::Real;
  const Real momentum = static_cast<Real>(group.momentum);
  const Real weight_decay = static_cast<Real>(group.weight_decay);
  const Real p = T::read(parameter);
  Real g = T::read(gradient);
  if (v.maximize) g = -g;
  if (weight_decay != 0) g = fma_or_not(fused, weight_decay, p, g);
  g = static_cast<Real>(v.trust_ratio) * g;
  Real d = g;
  if (v.has_buffer) {
    const Real undampened = static_cast<Real>(1.0 - group.dampening);
    const Real m = v.first ? g : fma_or_not<Real>(fused, undampened, g, momentum * T::read(buffer));
    d = v.nesterov ? fma_or_not(fused, momentum, m, g) : m;
    buffer = T::stored(m);
  }
  parameter = T::stored(fma_or_not(fused, static_cast<Real>(-group.lr), d, p));
}

// One number in `rarity` is special: zeros, denormals, ties, the largest, infinities, NaN.
template <class T>
std::vector<typename T::Element> numbers(std::size_t count, Random& random, unsigned rarity) {
  using Real = typename T::Real;
  const double tiny = sizeof(Real) == 8 ? 0x1p-1060 : 0x1p-140;
  const double specials[] = {0.0,     -0.0,     tiny,    -3 * tiny, 0x1p-24,   0x1.8p-25,
                             65504.0, -65520.0, 0x1p127, HUGE_VAL,  -HUGE_VAL, std::nan("")};
  std::vector<typename T::Element> result(count);
  for (auto& x : result) {
    const bool special = rarity != 0 && random.below(rarity) == 0;
    x = T::stored(static_cast<Real>(special ? specials[random.below(12)] : random.signed_unit()));
  }
  return result;
}

}  // namespace clr_test
