// The update of one lane of a slot, either plain or with everything that may come before and after it, and the choice
// between them for a slot. Included after F32, F64 and U32.
//
// The includer defines a type and two functions. A `Span` says from where to where a loop goes (`begin`, `end`), and
// who shares it. `prefetch(array, begin, end)` asks for elements before they are needed, where that helps.
// `for_lanes<Element>(work, span)` calls `work.at<Lane>(i, access)` for all lanes of the elements of a span.
#include "kernel/lanes.h"
#include "kernel/storage.inl"

namespace clr {
namespace {

template <class Element, class Work>
CLR_INLINE void for_lanes(const Work& work, Span span);

template <class Element>
struct LaneOf {
  using type = F32;
};
template <>
struct LaneOf<double> {
  using type = F64;
};

// A plain update.
template <class Element, class Coefficients = SgdCoefficients<typename LaneOf<Element>::type::Real>>
struct PlainUpdate {
  using Real = typename LaneOf<Element>::type::Real;
  static constexpr bool is_packed = true;
  Coefficients c;
  Element* parameter;
  const Element* gradient;
  Element* buffer;  // read and written only if the coefficients say that there is one

  CLR_INLINE_MEMBER PlainUpdate(const GroupValues& group, const Slot& slot)
      : PlainUpdate(coefficients<Real>(group, slot), static_cast<Element*>(slot.parameter),
                    static_cast<const Element*>(slot.gradient), static_cast<Element*>(slot.buffer)) {}

  CLR_INLINE_MEMBER PlainUpdate(const Coefficients& of, Element* p, const Element* g, Element* m)
      : c(of), parameter(p), gradient(g), buffer(m) {}

  // Calls `run` with the same update, of a kind that the compiler knows. Returns false if it is of no such kind.
  template <class Run>
  CLR_INLINE_MEMBER bool run_steady(Run run) const {
    if (c.maximize || c.trusts() || !c.has_buffer || c.first) return false;
    if (c.nesterov) {
      c.decays() ? run(steady<true, true>()) : run(steady<true, false>());
    } else {
      c.decays() ? run(steady<false, true>()) : run(steady<false, false>());
    }
    return true;
  }

  template <bool nesterov, bool decays>
  CLR_INLINE_MEMBER PlainUpdate<Element, SteadyCoefficients<Real, nesterov, decays>> steady() const {
    return {SteadyCoefficients<Real, nesterov, decays>(c), parameter, gradient, buffer};
  }

  CLR_INLINE_MEMBER const Element* first() const { return parameter; }

  // True if this access can start at element i of every array.
  template <class Access>
  CLR_INLINE_MEMBER bool all_suit(int64_t i, Access access) const {
    return access.suits(parameter, i) && access.suits(gradient, i) && access.suits(buffer, i);
  }

  // Asks for all numbers before it waits for one of them.
  template <class Lane, class Access>
  CLR_INLINE_MEMBER void at(int64_t i, Access access) const {
    Lane p, g, m = Lane::all(0);
    if (c.has_buffer && !c.first) access.read(buffer + i, m);
    access.read(parameter + i, p);
    access.read(gradient + i, g);
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

// A gradient of the parameter's dtype.
template <class E>
struct OwnGradient {
  static constexpr bool is_packed = true;  // True if lanes of the parameter's width read it well
  const E* numbers;                        // null: only the average is updated
  E* unscaled;

  CLR_INLINE_MEMBER explicit OwnGradient(const Slot& slot)
      : numbers(static_cast<const E*>(slot.gradient)), unscaled(static_cast<E*>(slot.unscaled)) {}

  template <class Lane, class Access>
  CLR_INLINE_MEMBER void read(int64_t i, Access access, Lane& g) const {
    access.read(numbers + i, g);
  }
  template <class Lane, class Access>
  CLR_INLINE_MEMBER void write_unscaled(const Lane& g, int64_t i, Access access) const {
    access.write(g, unscaled + i);
  }
  template <class Access>
  CLR_INLINE_MEMBER bool all_suit(int64_t i, Access access) const {
    return access.suits(numbers, i) && access.suits(unscaled, i);
  }
  CLR_INLINE_MEMBER void prefetch(int64_t begin, int64_t end) const { clr::prefetch(numbers, begin, end); }
};

// A gradient of another dtype than the parameter's, which is read in the dtype of the arithmetic.
struct OtherGradient {
  static constexpr bool is_packed = false;
  const void* numbers;
  void* unscaled;
  DType dtype;

  CLR_INLINE_MEMBER explicit OtherGradient(const Slot& slot)
      : numbers(slot.gradient), unscaled(slot.unscaled), dtype(slot.gradient_dtype) {}

  template <class Lane, class Access>
  CLR_INLINE_MEMBER void read(int64_t i, Access access, Lane& g) const {
    if (dtype == DType::float32) return read_as<float>(numbers, i, access, g);
    if (dtype == DType::bfloat16) return read_as<Bfloat16>(numbers, i, access, g);
    read_as<Float16>(numbers, i, access, g);
  }
  template <class Lane, class Access>
  CLR_INLINE_MEMBER void write_unscaled(const Lane& g, int64_t i, Access access) const {
    if (dtype == DType::float32) return write_as<float>(g, unscaled, i, access);
    if (dtype == DType::bfloat16) return write_as<Bfloat16>(g, unscaled, i, access);
    write_as<Float16>(g, unscaled, i, access);
  }
  // The processor finds this array by itself.
  CLR_INLINE_MEMBER void prefetch(int64_t, int64_t) const {}
};

// An update with everything that may come before and after it. WeightStorage says how the parameter is kept, see
// kernel/storage.inl.
template <class WeightStorage, class Buffer, class Gradient>
struct FullUpdate {
  using Element = typename WeightStorage::Element;
  using Real = typename LaneOf<Element>::type::Real;
  static constexpr bool is_packed = Gradient::is_packed;
  SgdCoefficients<Real> c;
  GradientCoefficients<Real> before;
  Real average_weight;
  bool first_average;
  WeightStorage kept;
  Gradient gradient;
  Buffer* buffer;
  typename WeightStorage::Averaged* average;

  CLR_INLINE_MEMBER FullUpdate(const GradientValues& gradients, const GroupValues& group, const Slot& slot)
      : c(coefficients<Real>(group, slot)),
        before(coefficients<Real>(gradients)),
        average_weight(static_cast<Real>(group.average_weight)),
        first_average(slot.first_average),
        kept(slot),
        gradient(slot),
        buffer(static_cast<Buffer*>(slot.buffer)),
        average(static_cast<typename WeightStorage::Averaged*>(slot.average)) {}

  CLR_INLINE_MEMBER const Element* first() const { return kept.parameter; }

  template <class Access>
  CLR_INLINE_MEMBER bool all_suit(int64_t i, Access access) const {
    return access.suits(kept.parameter, i) && kept.all_suit(i, access) && gradient.all_suit(i, access) &&
           access.suits(buffer, i) && access.suits(average, i);
  }

  template <class Lane, class Access>
  CLR_INLINE_MEMBER void at(int64_t i, Access access) const {
    Lane p, g = Lane::all(0), m = Lane::all(0), a = Lane::all(0);
    const bool has_gradient = gradient.numbers != nullptr;
    if (average != nullptr && !first_average) access.read(average + i, a);
    if (has_gradient && c.has_buffer && !c.first) access.read(buffer + i, m);
    if (has_gradient) gradient.read(i, access, g);
    kept.read(i, access, p);
    if (has_gradient) {
      g = unscaled(before, g);
      if (gradient.unscaled != nullptr) gradient.write_unscaled(g, i, access);
      update(c, p, clipped(before, g), m);
      kept.write(p, i, access);
      if (c.has_buffer) access.write(m, buffer + i);
    }
    if (average == nullptr) return;
    p = kept.written(p, i, access);
    access.write(first_average ? p : averaged(average_weight, a, p), average + i);
  }

  CLR_INLINE_MEMBER void prefetch(int64_t begin, int64_t end) const {
    kept.prefetch(begin, end);
    if (gradient.numbers != nullptr) gradient.prefetch(begin, end);
    if (gradient.numbers != nullptr && c.has_buffer) clr::prefetch(buffer, begin, end);
    if (average != nullptr) clr::prefetch(average, begin, end);
  }
};

// A slot and the numbers for it.
struct Job {
  const GradientValues& gradients;
  const GroupValues& group;
  const Slot& slot;
  Span span;
};

template <class WeightStorage, class Buffer, class Gradient>
CLR_FUNCTION void update_with(const Job& job) {
  for_lanes<typename WeightStorage::Element>(
      FullUpdate<WeightStorage, Buffer, Gradient>(job.gradients, job.group, job.slot), job.span);
}

template <class WeightStorage, class Buffer>
CLR_FUNCTION void update_whole(const Job& job) {
  if (job.slot.gradient_dtype != job.slot.dtype) return update_with<WeightStorage, Buffer, OtherGradient>(job);
  update_with<WeightStorage, Buffer, OwnGradient<typename WeightStorage::Element>>(job);
}

// Updates run by run: within a run, the place of an element in the whole tensor differs from its number by a constant.
template <class Element, class Buffer>
CLR_FUNCTION void update_stochastic(const Job& job) {
  const Places& places = job.slot.places;
  if (places.run == 0) return update_whole<Stochastic<Element>, Buffer>(job);
  Slot slot = job.slot;
  for (int64_t run = job.span.begin / places.run; run * places.run < job.span.end; ++run) {
    const int64_t begin = run * places.run, end = begin + places.run;
    slot.places.first = places.first + run * (places.stride - places.run);
    Span span = job.span;
    if (span.begin < begin) span.begin = begin;
    if (span.end > end) span.end = end;
    update_whole<Stochastic<Element>, Buffer>({job.gradients, job.group, slot, span});
  }
}

template <class Element, class Buffer>
CLR_FUNCTION void update_half(const Job& job) {
  switch (job.slot.storage) {
    case Storage::nearest:
      return update_whole<Nearest<Element>, Buffer>(job);
    case Storage::stochastic:
      return update_stochastic<Element, Buffer>(job);
    case Storage::split:
      return update_whole<Split<Element>, Buffer>(job);
    case Storage::master:
      return update_whole<Master<Element>, Buffer>(job);
  }
}

template <class Element>
CLR_FUNCTION void update_element(const Job& job) {
  if (is_bare_update(job.gradients, job.slot)) {
    return for_lanes<Element>(PlainUpdate<Element>(job.group, job.slot), job.span);
  }
  if constexpr (sizeof(Element) == 2) {
    return job.slot.buffer_dtype == DType::float32 ? update_half<Element, float>(job)
                                                   : update_half<Element, Element>(job);
  } else if constexpr (sizeof(Element) == 4) {
    if (job.slot.buffer_dtype == DType::bfloat16) return update_whole<Nearest<Element>, Bfloat16>(job);
  }
  update_whole<Nearest<Element>, Element>(job);
}

CLR_FUNCTION void update_slot(const GradientValues& gradients, const GroupValues& group, const Slot& slot, Span span) {
  const Job job = {gradients, group, slot, span};
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
