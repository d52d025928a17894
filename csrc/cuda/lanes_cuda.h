// Lanes of one number for a thread of a GPU, and packs of lanes that are read and written up to 16 bytes at once.
#pragma once

#include "kernel/lanes_scalar.h"

namespace clr {
namespace {

__device__ __forceinline__ F32 fused(F32 a, F32 b, F32 c) { return {__fmaf_rn(a.x, b.x, c.x)}; }
__device__ __forceinline__ F64 fused(F64 a, F64 b, F64 c) { return {__fma_rn(a.x, b.x, c.x)}; }
__device__ __forceinline__ F64 fused_once(F64 a, F64 b, F64 c) { return fused(a, b, c); }

// `count` elements as words of 16 bytes, or one of 8. Aligned memory is read and written in words, other memory element
// by element. All threads of a block take the same way.
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

  __device__ static bool are_aligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % size == 0; }

  __device__ __forceinline__ void read(const Element* from) {
    if (are_aligned(from)) {
      for (int i = 0; i < bytes / size; ++i) words[i] = reinterpret_cast<const Word*>(from)[i];
    } else {
      for (int i = 0; i < count; ++i) elements[i] = from[i];
    }
  }

  __device__ __forceinline__ void write(Element* to) const {
    if (are_aligned(to)) {
      for (int i = 0; i < bytes / size; ++i) reinterpret_cast<Word*>(to)[i] = words[i];
    } else {
      for (int i = 0; i < count; ++i) to[i] = elements[i];
    }
  }
};

// A pack of lanes, as storage.inl accesses memory.
struct Vector {
  template <class Lane, class Element>
  __device__ __forceinline__ void read(const Element* from, Lane& to) const {
    Words<Element, Lane::width> words;
    words.read(from);
    load(words.elements, to);
  }
  template <class Lane, class Element>
  __device__ __forceinline__ void write(const Lane& from, Element* to) const {
    Words<Element, Lane::width> words;
    store(from, words.elements);
    words.write(to);
  }
  template <class Lane, class Random, class Element>
  __device__ __forceinline__ void write_stochastic(const Lane& from, const Random& random, Element* to) const {
    Words<Element, Lane::width> words;
    store_stochastic(from, random, words.elements);
    words.write(to);
  }
};

}  // namespace
}  // namespace clr
