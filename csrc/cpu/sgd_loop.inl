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

template <class Element>
void update_range(const GroupValues& group, const Slot& slot, int64_t begin, int64_t end) {
  using Lane = typename LaneOf<Element>::type;
  // The uniform branches of the update are taken once a block; what is in flight hides the fma's latency.
  using Block = Pack<Lane, CLR_LANES_PER_BLOCK>;
  const auto c = coefficients<typename Lane::Real>(group, slot);
  const Arrays<Element> a = {static_cast<Element*>(slot.parameter), static_cast<const Element*>(slot.gradient),
                             static_cast<Element*>(slot.buffer)};
  int64_t i = begin;
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
