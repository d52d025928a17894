// The loops over a slot and their tail, once for all instruction sets and types. Included after F32, F64 and U32.
#include "cpu/lanes.h"
#include "cpu/storage.inl"

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

// From this size on, parameter and buffer do not wait for the next step in a core's own cache. They are asked for
// before their turn, across the page borders at which the processor's prefetching stops (bench/README.md: MLP on one
// thread, 8 %). Below, it only costs: 10 % of the same on two threads.
constexpr int64_t kPrefetchBytes = 512 * 1024;
constexpr int64_t kPrefetchAhead = 1024;

// Asks for the lines of elements begin to end of an array before they are needed. No value depends on it.
template <class Element>
CLR_INLINE void prefetch(const Element* array, int64_t begin, int64_t end) {
#if defined(__GNUC__)
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(Element));
  for (int64_t i = begin; i < end; i += line) __builtin_prefetch(array + i);
#else
  static_cast<void>(array), static_cast<void>(begin), static_cast<void>(end);
#endif
}

// Elements begin to end of what `work` does: `work.at<Lane>(i, access)` for each lane, `work.prefetch(begin, end)`.
template <class Element, class Work>
CLR_INLINE void for_lanes(const Work& work, int64_t begin, int64_t end) {
  using Lane = typename LaneOf<Element>::type;
  // The uniform branches of the update are taken once a block; what is in flight hides the fma's latency.
  using Block = Pack<Lane, CLR_LANES_PER_BLOCK>;
  int64_t i = begin;
  if ((end - begin) * static_cast<int64_t>(sizeof(Element)) >= kPrefetchBytes) {
    constexpr int64_t ahead = kPrefetchAhead / static_cast<int64_t>(sizeof(Element));
    for (; i + ahead + Block::width <= end; i += Block::width) {
      work.prefetch(i + ahead, i + ahead + Block::width);
      work.template at<Block>(i, Whole{});
    }
  }
  for (; i + Block::width <= end; i += Block::width) work.template at<Block>(i, Whole{});
  for (; i + Lane::width <= end; i += Lane::width) work.template at<Lane>(i, Whole{});
  if (i < end) work.template at<Lane>(i, First{static_cast<int>(end - i)});
}

// An update and nothing else.
template <class Element>
struct PlainUpdate {
  SgdCoefficients<typename LaneOf<Element>::type::Real> c;
  Element* parameter;
  const Element* gradient;
  Element* buffer;  // read and written only if the coefficients say there is one

  PlainUpdate(const GroupValues& group, const Slot& slot)
      : c(coefficients<typename LaneOf<Element>::type::Real>(group, slot)),
        parameter(static_cast<Element*>(slot.parameter)),
        gradient(static_cast<const Element*>(slot.gradient)),
        buffer(static_cast<Element*>(slot.buffer)) {}

  template <class Lane, class Access>
  CLR_INLINE_MEMBER void at(int64_t i, Access access) const {
    Lane p, g, m;
    access.read(parameter + i, p);
    access.read(gradient + i, g);
    if (c.has_buffer && !c.first) {
      access.read(buffer + i, m);
    } else {
      m = g;
    }
    update(c, p, g, m);
    access.write(p, parameter + i);
    if (c.has_buffer) access.write(m, buffer + i);
  }

  CLR_INLINE_MEMBER void prefetch(int64_t begin, int64_t end) const {
    clr::prefetch(parameter, begin, end);
    clr::prefetch(gradient, begin, end);
    if (c.has_buffer) clr::prefetch(buffer, begin, end);
  }
};

// An update with all that may come before and after it. Kept: how the parameter is kept, see cpu/storage.inl.
template <class Kept, class Buffer>
struct WholeUpdate {
  using Element = typename Kept::Element;
  using Real = typename LaneOf<Element>::type::Real;
  SgdCoefficients<Real> c;
  GradientCoefficients<Real> before;
  Real average_weight;
  bool first_average;
  Kept kept;
  const Element* gradient;  // null: nothing but the average moves
  Element* unscaled_gradient;
  Buffer* buffer;
  typename Kept::Averaged* average;

  WholeUpdate(const GradientValues& gradients, const GroupValues& group, const Slot& slot)
      : c(coefficients<Real>(group, slot)),
        before(coefficients<Real>(gradients)),
        average_weight(static_cast<Real>(group.average_weight)),
        first_average(slot.first_average),
        kept(slot),
        gradient(static_cast<const Element*>(slot.gradient)),
        unscaled_gradient(static_cast<Element*>(slot.unscaled)),
        buffer(static_cast<Buffer*>(slot.buffer)),
        average(static_cast<typename Kept::Averaged*>(slot.average)) {}

  template <class Lane, class Access>
  CLR_INLINE_MEMBER void at(int64_t i, Access access) const {
    Lane p;
    kept.read(i, access, p);
    if (gradient != nullptr) {
      Lane g, m;
      access.read(gradient + i, g);
      g = unscaled(before, g);
      if (unscaled_gradient != nullptr) access.write(g, unscaled_gradient + i);
      g = clipped(before, g);
      if (c.has_buffer && !c.first) {
        access.read(buffer + i, m);
      } else {
        m = g;
      }
      update(c, p, g, m);
      kept.write(p, i, access);
      if (c.has_buffer) access.write(m, buffer + i);
    }
    if (average != nullptr) move_average(i, access, kept.written(p, i, access));
  }

  template <class Lane, class Access>
  CLR_INLINE_MEMBER void move_average(int64_t i, Access access, Lane p) const {
    Lane a = p;
    if (!first_average) {
      access.read(average + i, a);
      a = averaged(average_weight, a, p);
    }
    access.write(a, average + i);
  }

  CLR_INLINE_MEMBER void prefetch(int64_t begin, int64_t end) const {
    kept.prefetch(begin, end);
    if (gradient != nullptr) clr::prefetch(gradient, begin, end);
    if (gradient != nullptr && c.has_buffer) clr::prefetch(buffer, begin, end);
    if (average != nullptr) clr::prefetch(average, begin, end);
  }
};

// A slot and the numbers for it.
struct Job {
  const GradientValues& gradients;
  const GroupValues& group;
  const Slot& slot;
  int64_t begin, end;
};

template <class Kept, class Buffer>
void update_whole(const Job& job) {
  for_lanes<typename Kept::Element>(WholeUpdate<Kept, Buffer>(job.gradients, job.group, job.slot), job.begin, job.end);
}

template <class Element, class Buffer>
void update_half(const Job& job) {
  switch (job.slot.storage) {
    case Storage::nearest:
      return update_whole<Nearest<Element>, Buffer>(job);
    case Storage::stochastic:
      return update_whole<Stochastic<Element>, Buffer>(job);
    case Storage::split:
      return update_whole<Split<Element>, Buffer>(job);
    case Storage::master:
      return update_whole<Master<Element>, Buffer>(job);
  }
}

template <class Element>
void update_element(const Job& job) {
  if (is_plain(job.gradients, job.slot)) {
    return for_lanes<Element>(PlainUpdate<Element>(job.group, job.slot), job.begin, job.end);
  }
  if constexpr (sizeof(Element) == 2) {
    return job.slot.buffer_dtype == DType::float32 ? update_half<Element, float>(job)
                                                   : update_half<Element, Element>(job);
  } else if constexpr (sizeof(Element) == 4) {
    if (job.slot.buffer_dtype == DType::bfloat16) return update_whole<Nearest<Element>, Bfloat16>(job);
  }
  update_whole<Nearest<Element>, Element>(job);
}

void update_slot(const GradientValues& gradients, const GroupValues& group, const Slot& slot, int64_t begin,
                 int64_t end) {
  const Job job = {gradients, group, slot, begin, end};
  switch (slot.dtype) {
    case DType::float32:
      return update_element<float>(job);
    case DType::float64:
      return update_element<double>(job);
    case DType::bfloat16:
      return update_element<Bfloat16>(job);
    case DType::float16:
      return update_element<Float16>(job);
  }
}

}  // namespace
}  // namespace clr
