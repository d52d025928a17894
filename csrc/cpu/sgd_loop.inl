// The loop over elements and its tail, once for all instruction sets and types. Included after F32, F64 and U32.
#include "core/prefetch.h"
#include "cpu/kernels.h"

// Uses the Span of cpu/kernels.h.
#include "kernel/update.inl"

namespace clr {
namespace {

// From this size on, parameter and buffer do not wait for the next step in a core's own cache. They are asked for
// before their turn, across the page borders at which the processor's prefetching stops (bench/README.md: MLP on one
// thread, 8 %). Below this size, asking only costs time: 10 % of the same run on two threads.
constexpr int64_t kPrefetchBytes = 512 * 1024;
constexpr int64_t kPrefetchAhead = 1024;

// Asks for the lines of elements begin to end of an array before they are needed. Results do not depend on it.
template <class Element>
CLR_INLINE void prefetch(const Element* array, int64_t begin, int64_t end) {
  constexpr auto line = static_cast<int64_t>(kCacheLine / sizeof(Element));
  for (int64_t i = begin; i < end; i += line) prefetch_line(array + i);
}

// Runs `work` for the elements of a span: calls `work.at<Lane>(i, access)` for each lane, and `work.prefetch(begin,
// end)`.
template <class Element, class Work>
CLR_INLINE void for_lanes(const Work& work, Span span) {
  using Lane = typename LaneOf<Element>::type;
  using Block = Pack<Lane, kLanesPerBlock>;
  const int64_t begin = span.begin, end = span.end;
  int64_t i = begin;
  if ((end - begin) * static_cast<int64_t>(sizeof(Element)) >= kPrefetchBytes) {
    constexpr int64_t ahead = kPrefetchAhead / static_cast<int64_t>(sizeof(Element));
    for (; i + ahead + Block::width <= end; i += Block::width) {
      work.prefetch(i + ahead, i + ahead + Block::width);
      work.template at<Block>(i, AllLanes{});
    }
  }
  for (; i + Block::width <= end; i += Block::width) work.template at<Block>(i, AllLanes{});
  for (; i + Lane::width <= end; i += Lane::width) work.template at<Lane>(i, AllLanes{});
  if (i < end) work.template at<Lane>(i, FirstLanes{static_cast<int>(end - i)});
}

}  // namespace
}  // namespace clr
