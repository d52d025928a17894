// The loop of a block, or of a warp, over the elements of a chunk.
#pragma once

#include "cuda/lanes_cuda.h"
#include "cuda/tables.h"

namespace clr {
namespace {

// The threads that share a loop: a whole block, or one warp.
struct Crew {
  int rank;  // of this thread among them
  int size;
};

struct Span {
  int64_t begin, end;
  Crew crew;
};

// Does nothing: a GPU hides the latency of memory with many threads.
template <class Element>
CLR_INLINE void prefetch(const Element*, int64_t, int64_t) {}

}  // namespace
}  // namespace clr

// Uses these lanes and spans.
#include "kernel/update.inl"

namespace clr {
namespace {

// Updates `count` packs of 16 bytes, one every `stride` elements. Asks for all their numbers before it waits for one.
template <int count, int stride, class Element, class Coefficients>
__device__ __forceinline__ void update_packs(const PlainUpdate<Element, Coefficients>& work, int64_t first) {
  constexpr int width = 16 / static_cast<int>(sizeof(Element));
  using Lane = Pack<typename LaneOf<Element>::type, sizeof(Element) == 2 ? 2 : 1>;
  Words<Element, width> p[count], g[count], m[count];
#pragma unroll
  for (int j = 0; j < count; ++j) {
    p[j].read(work.parameter + first + j * stride);
    g[j].read(work.gradient + first + j * stride);
    m[j].read(work.buffer + first + j * stride);
  }
#pragma unroll
  for (int j = 0; j < count; ++j) {
#pragma unroll
    for (int i = 0; i < width; i += Lane::width) {
      Lane new_p, of_g, new_m;
      load_word(p[j].elements + i, new_p);
      load_word(g[j].elements + i, of_g);
      load_word(m[j].elements + i, new_m);
      update(work.c, new_p, of_g, new_m);
      store_word(new_p, p[j].elements + i);
      store_word(new_m, m[j].elements + i);
    }
    p[j].write(work.parameter + first + j * stride);
    m[j].write(work.buffer + first + j * stride);
  }
}

// A plain update in a kernel that has the registers for two packs at once, if a whole block shares the chunk.
template <class Element>
struct TwoAtOnce : PlainUpdate<Element> {
  using PlainUpdate<Element>::PlainUpdate;
};
template <class Work>
constexpr bool kTakesTwo = false;
template <class Element>
constexpr bool kTakesTwo<TwoAtOnce<Element>> = true;

// The crew shares the elements: one by one up to the first parameter that is aligned to 16 bytes, then packs, then one
// by one again. One by one throughout if other arrays do not suit such packs.
template <class Element, class Work>
CLR_INLINE void for_lanes(const Work& work, Span span) {
#if defined(__CUDA_ARCH__)
  using Lane = typename LaneOf<Element>::type;
  constexpr int width = 16 / static_cast<int>(sizeof(Element));
  using Block = Pack<Lane, width>;
  const int count = static_cast<int>(span.end - span.begin), rank = span.crew.rank;
  if constexpr (Work::is_packed) {
    const int past = static_cast<int>(reinterpret_cast<uintptr_t>(work.first() + span.begin) % 16);
    const int first = (16 - past) % 16 / static_cast<int>(sizeof(Element));
    if (first < count && work.all_suit(span.begin + first, Packs<width>{})) {
      const int last = count - (count - first) % width;
      if (rank < first) work.template at<Lane>(span.begin + rank, AllLanes{});
      if (last + rank < count) work.template at<Lane>(span.begin + last + rank, AllLanes{});
      const int stride = span.crew.size * width;
      int i = first + rank * width;
      if constexpr (kTakesTwo<Work>) {
        constexpr int apart = kPlainThreads * width;
        const int end = stride == apart ? last : 0;
        work.run_steady([&](const auto& steady) {
          for (; i + apart < end; i += 2 * apart) update_packs<2, apart>(steady, span.begin + i);
        });
      }
      for (; i < last; i += stride) work.template at<Block>(span.begin + i, Packs<width>{});
      return;
    }
  }
  for (int i = rank; i < count; i += span.crew.size) work.template at<Lane>(span.begin + i, AllLanes{});
#endif
}

}  // namespace
}  // namespace clr
