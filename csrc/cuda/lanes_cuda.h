// Lanes of one number for a thread of a GPU, and packs of lanes that are read and written up to 16 bytes at once.
#pragma once

#include "kernel/lanes_scalar.h"

namespace clr {
namespace {

__device__ __forceinline__ F32 fused(F32 a, F32 b, F32 c) { return {__fmaf_rn(a.x, b.x, c.x)}; }
__device__ __forceinline__ F64 fused(F64 a, F64 b, F64 c) { return {__fma_rn(a.x, b.x, c.x)}; }
__device__ __forceinline__ F64 fused_once(F64 a, F64 b, F64 c) { return fused(a, b, c); }

// The elements that a word of 32 bits holds, or one that is as wide, on their way to and from arithmetic. A NaN that is
// loaded may become any NaN: arithmetic makes it the GPU's own, and that is the only one that is stored.
template <class Element, class Lane>
__device__ __forceinline__ void load_word(const Element* from, Pack<Lane, 1>& to) {
  load(from, to);
}
__device__ __forceinline__ void load_word(const Bfloat16* from, Pack<F32, 2>& to) {
  uint32_t word;
  memcpy(&word, from, sizeof word);
  to.lanes[0].x = float_of_bits(word << 16);
  to.lanes[1].x = float_of_bits(word & 0xffff0000u);
}
__device__ __forceinline__ void load_word(const Float16* from, Pack<F32, 2>& to) {
  for (int i = 0; i < 2; ++i) to.lanes[i].x = float_of_half(static_cast<uint16_t>(from[i]));
}

template <class Element, class Lane>
__device__ __forceinline__ void store_word(const Pack<Lane, 1>& from, Element* to) {
  store(from, to);
}
__device__ __forceinline__ void store_word(const Pack<F32, 2>& from, Bfloat16* to) {
  const uint32_t word = upper_halves(bits_to_bfloat16(from.lanes[0].x), bits_to_bfloat16(from.lanes[1].x));
  memcpy(to, &word, sizeof word);
}
__device__ __forceinline__ void store_word(const Pack<F32, 2>& from, Float16* to) {
  for (int i = 0; i < 2; ++i) {
    const uint16_t half = half_of_float(from.lanes[i].x);
    to[i] = static_cast<Float16>(half == 0x7fffu ? 0x7e00u : half);
  }
}

// `count` elements as words of 16 bytes, or one of 8, in which aligned memory is read and written.
template <class Element, int count>
struct Words {
  static constexpr int bytes = count * static_cast<int>(sizeof(Element));
  static constexpr int size = bytes % 16 == 0 ? 16 : 8;
  static_assert(bytes % size == 0, "a pack must fill whole words");
  struct alignas(size) Word {
    uint32_t parts[size / 4];
  };
  union {
    Word words[bytes / size];
    Element elements[count];
  };

  __device__ __forceinline__ void read(const Element* from) {
    for (int i = 0; i < bytes / size; ++i) words[i] = reinterpret_cast<const Word*>(from)[i];
  }

  __device__ __forceinline__ void write(Element* to) const {
    for (int i = 0; i < bytes / size; ++i) reinterpret_cast<Word*>(to)[i] = words[i];
  }
};

// Accesses packs of `width` elements in memory that suits them.
template <int width>
struct Packs {
  // True if the array is null, or aligned at element i.
  template <class Element>
  __device__ __forceinline__ bool suits(const Element* array, int64_t i) const {
    return array == nullptr || reinterpret_cast<uintptr_t>(array + i) % Words<Element, width>::size == 0;
  }

  template <class Lane, class Element>
  __device__ __forceinline__ void read(const Element* from, Lane& to) const {
    Words<Element, width> words;
    words.read(from);
    load(words.elements, to);
  }
  template <class Lane, class Element>
  __device__ __forceinline__ void write(const Lane& from, Element* to) const {
    Words<Element, width> words;
    store(from, words.elements);
    words.write(to);
  }
  template <class Lane, class Random, class Element>
  __device__ __forceinline__ void write_stochastic(const Lane& from, const Random& random, Element* to) const {
    Words<Element, width> words;
    store_stochastic(from, random, words.elements);
    words.write(to);
  }
};

}  // namespace
}  // namespace clr
