// Values compared by their bits: what "the same" means here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

namespace clr_test {

template <class T>
struct BitsOf;
template <>
struct BitsOf<float> {
  using type = std::uint32_t;
};
template <>
struct BitsOf<double> {
  using type = std::uint64_t;
};
template <>
struct BitsOf<std::uint16_t> {
  using type = std::uint16_t;
};

template <class T>
typename BitsOf<T>::type bits_of(T value) {
  typename BitsOf<T>::type bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

template <class T>
T from_bits(typename BitsOf<T>::type bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline bool is_nan(float x) { return x != x; }
inline bool is_nan(double x) { return x != x; }

// The same bits. Of two NaNs nobody promises the payload: they are the same.
template <class T>
bool same(T a, T b) {
  return bits_of(a) == bits_of(b) || (is_nan(a) && is_nan(b));
}

constexpr std::ptrdiff_t kNoDifference = -1;

// The first place where two arrays differ, or kNoDifference.
template <class T>
std::ptrdiff_t first_difference(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!same(a[i], b[i])) return static_cast<std::ptrdiff_t>(i);
  }
  return kNoDifference;
}

// Numbers that are the same on every platform: the engine is standardised, the library's distributions are not.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t bits() { return engine_(); }
  std::uint64_t below(std::uint64_t n) { return engine_() % n; }
  // In [-1, 1).
  double signed_unit() { return static_cast<double>(static_cast<std::int64_t>(engine_())) * 0x1p-63; }
  // In [0, 1).
  double unit() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }

 private:
  std::mt19937_64 engine_;
};

}  // namespace clr_test
