// The loop over a slot and its tail, once for all instruction sets and types. Included after F32 and F64.
#include "cpu/lanes.h"

namespace clr {
namespace {

template <class Element>
struct LaneOf {
  using type = F32;
};
template <>
struct LaneOf<double> {
  using type = F64;
};

// Whole lanes, and the first n elements of one.
struct Whole {
  template <class Lane, class Element>
  void read(const Element* from, Lane& to) const {
    load(from, to);
  }
  template <class Lane, class Element>
  void write(const Lane& from, Element* to) const {
    store(from, to);
  }
};

struct First {
  int n;
  template <class Lane, class Element>
  void read(const Element* from, Lane& to) const {
    load_first(from, n, to);
  }
  template <class Lane, class Element>
  void write(const Lane& from, Element* to) const {
    store_first(from, n, to);
  }
};

template <class Element>
struct Arrays {
  Element* parameter;
  const Element* gradient;
  Element* buffer;  // read and written only if the coefficients say there is one
};

template <class Lane, class Access, class Element>
CLR_INLINE void update_at(const SgdCoefficients<typename Lane::Real>& c, const Arrays<Element>& a, int64_t i,
                          Access access) {
  Lane p, g, m;
  access.read(a.parameter + i, p);
  access.read(a.gradient + i, g);
  if (c.has_buffer && !c.first) {
    access.read(a.buffer + i, m);
  } else {
    m = g;
  }
  update(c, p, g, m);
  access.write(p, a.parameter + i);
  if (c.has_buffer) access.write(m, a.buffer + i);
}

// From this size on, parameter and buffer do not wait for the next step in a core's own cache. They are asked for
// before their turn, across the page borders at which the processor's prefetching stops (bench/README.md: MLP on one
// thread, 8 %). Below, it only costs: 10 % of the same on two threads.
constexpr int64_t kPrefetchBytes = 512 * 1024;
constexpr int64_t kPrefetchAhead = 1024;

// Asks for the line of an address before it is needed. No value depends on it.
CLR_INLINE void prefetch(const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address);
#else
  static_cast<void>(address);
#endif
}

// Asks for the lines of elements begin to end.
template <class Real, class Element>
CLR_INLINE void prefetch(const SgdCoefficients<Real>& c, const Arrays<Element>& a, int64_t begin, int64_t end) {
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(Element));
  for (int64_t i = begin; i < end; i += line) {
    prefetch(a.parameter + i);
    prefetch(a.gradient + i);
    if (c.has_buffer) prefetch(a.buffer + i);
  }
}

template <class Element>
void update_range(const GroupValues& group, const Slot& slot, int64_t begin, int64_t end) {
  using Lane = typename LaneOf<Element>::type;
  // The uniform branches of the update are taken once a block; what is in flight hides the fma's latency.
  using Block = Pack<Lane, CLR_LANES_PER_BLOCK>;
  const auto c = coefficients<typename Lane::Real>(group, slot);
  const Arrays<Element> a = {static_cast<Element*>(slot.parameter), static_cast<const Element*>(slot.gradient),
                             static_cast<Element*>(slot.buffer)};
  int64_t i = begin;
  if ((end - begin) * static_cast<int64_t>(sizeof(Element)) >= kPrefetchBytes) {
    constexpr int64_t ahead = kPrefetchAhead / static_cast<int64_t>(sizeof(Element));
    for (; i + ahead + Block::width <= end; i += Block::width) {
      prefetch(c, a, i + ahead, i + ahead + Block::width);
      update_at<Block>(c, a, i, Whole{});
    }
  }
  for (; i + Block::width <= end; i += Block::width) update_at<Block>(c, a, i, Whole{});
  for (; i + Lane::width <= end; i += Lane::width) update_at<Lane>(c, a, i, Whole{});
  if (i < end) update_at<Lane>(c, a, i, First{static_cast<int>(end - i)});
}

void update_slot(const GroupValues& group, const Slot& slot, int64_t begin, int64_t end) {
  switch (slot.dtype) {
    case DType::float32:
      return update_range<float>(group, slot, begin, end);
    case DType::float64:
      return update_range<double>(group, slot, begin, end);
    case DType::bfloat16:
      return update_range<Bfloat16>(group, slot, begin, end);
    case DType::float16:
      return update_range<Float16>(group, slot, begin, end);
  }
}

}  // namespace
}  // namespace clr
