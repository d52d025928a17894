// The update of one lane of a slot, either plain or with everything that may come before and after it, and the choice
// between them for a slot. Included after F32, F64 and U32.
//
// The includer defines two functions. `prefetch(array, begin, end)` asks for elements before they are needed, where
// that helps. `for_lanes<Element>(work, begin, end)` calls `work.at<Lane>(i, access)` for all lanes of elements begin
// to end.
#include "kernel/lanes.h"
#include "kernel/storage.inl"

namespace clr {
namespace {

template <class Element, class Work>
CLR_INLINE void for_lanes(const Work& work, int64_t begin, int64_t end);

template <class Element>
struct LaneOf {
  using type = F32;
};
template <>
struct LaneOf<double> {
  using type = F64;
};

// A plain update.
template <class Element>
struct PlainUpdate {
  SgdCoefficients<typename LaneOf<Element>::type::Real> c;
  Element* parameter;
  const Element* gradient;
  Element* buffer;  // read and written only if the coefficients say that there is one

  CLR_INLINE_MEMBER PlainUpdate(const GroupValues& group, const Slot& slot)
      : c(coefficients<typename LaneOf<Element>::type::Real>(group, slot)),
        parameter(static_cast<Element*>(slot.parameter)),
        gradient(static_cast<const Element*>(slot.gradient)),
        buffer(static_cast<Element*>(slot.buffer)) {}

  CLR_INLINE_MEMBER const Element* first() const { return parameter; }

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

// An update with everything that may come before and after it. WeightStorage says how the parameter is kept, see
// kernel/storage.inl.
template <class WeightStorage, class Buffer>
struct FullUpdate {
  using Element = typename WeightStorage::Element;
  using Real = typename LaneOf<Element>::type::Real;
  SgdCoefficients<Real> c;
  GradientCoefficients<Real> before;
  Real average_weight;
  bool first_average;
  WeightStorage kept;
  const Element* gradient;  // null: only the average is updated
  Element* unscaled_gradient;
  Buffer* buffer;
  typename WeightStorage::Averaged* average;

  CLR_INLINE_MEMBER FullUpdate(const GradientValues& gradients, const GroupValues& group, const Slot& slot)
      : c(coefficients<Real>(group, slot)),
        before(coefficients<Real>(gradients)),
        average_weight(static_cast<Real>(group.average_weight)),
        first_average(slot.first_average),
        kept(slot),
        gradient(static_cast<const Element*>(slot.gradient)),
        unscaled_gradient(static_cast<Element*>(slot.unscaled)),
        buffer(static_cast<Buffer*>(slot.buffer)),
        average(static_cast<typename WeightStorage::Averaged*>(slot.average)) {}

  CLR_INLINE_MEMBER const Element* first() const { return kept.parameter; }

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

template <class WeightStorage, class Buffer>
CLR_FUNCTION void update_whole(const Job& job) {
  for_lanes<typename WeightStorage::Element>(FullUpdate<WeightStorage, Buffer>(job.gradients, job.group, job.slot),
                                             job.begin, job.end);
}

template <class Element, class Buffer>
CLR_FUNCTION void update_half(const Job& job) {
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
CLR_FUNCTION void update_element(const Job& job) {
  if (is_bare_update(job.gradients, job.slot)) {
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

CLR_FUNCTION void update_slot(const GradientValues& gradients, const GroupValues& group, const Slot& slot,
                              int64_t begin, int64_t end) {
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
