// Random numbers for lanes, and stores that round with them, once for all instruction sets. Included after F32 and U32.
#pragma once

#include "core/stochastic_rounding.h"
#include "kernel/lanes.h"

namespace clr {
namespace {

// The random bits that go with float32 lanes.
template <class Lane>
struct RandomOf;
template <>
struct RandomOf<F32> {
  using type = U32;
};
template <int count>
struct RandomOf<Pack<F32, count>> {
  using type = Pack<U32, count>;
};

// Computes random_bits(key, element) for the elements first, first + 1, ...
CLR_INLINE void random_from(uint64_t key, uint64_t first, U32& to) {
  const uint64_t upper_half = first >> 32;
  const U32 lower_half = counting_from(static_cast<uint32_t>(first));
  to = random_bits(key_words(key, upper_half), lower_half);
  if (static_cast<uint32_t>(first) > UINT32_MAX - (U32::width - 1)) {
    // The elements pass a multiple of 2^32: the lower halves from 0 on belong to the next upper half.
    const U32 passed = random_bits(key_words(key, upper_half + 1), lower_half);
    to = passed ^ (to ^ passed) * (lower_half >> 31);
  }
}

template <int count>
CLR_INLINE void random_from(uint64_t key, uint64_t first, Pack<U32, count>& to) {
  for (int i = 0; i < count; ++i) random_from(key, first + static_cast<uint64_t>(i * U32::width), to.lanes[i]);
}

CLR_INLINE void store_stochastic(const F32& from, const U32& random, Bfloat16* to) {
  store(stochastic_bfloat16(from, random), to);
}
CLR_INLINE void store_stochastic(const F32& from, const U32& random, Float16* to) {
  store(stochastic_float16(from, random), to);
}

CLR_INLINE void store_stochastic_first(const F32& from, const U32& random, int n, Bfloat16* to) {
  store_first(stochastic_bfloat16(from, random), n, to);
}
CLR_INLINE void store_stochastic_first(const F32& from, const U32& random, int n, Float16* to) {
  store_first(stochastic_float16(from, random), n, to);
}

template <int count, class Element>
CLR_INLINE void store_stochastic(const Pack<F32, count>& from, const Pack<U32, count>& random, Element* to) {
  for (int i = 0; i < count; ++i) store_stochastic(from.lanes[i], random.lanes[i], to + i * F32::width);
}

}  // namespace
}  // namespace clr
