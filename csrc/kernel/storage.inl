// The ways to read a parameter before its update and to write it after. Included after F32, F64 and U32.
//
// All have read(i, access, p); write(p, i, access); written(p, i, access), which returns the value that goes into an
// average; all_suit(i, access), which says whether an access can start at element i of what is kept beside the
// parameter; prefetch(begin, end); and the types Element, of the parameter, and Averaged, of its average.
#include "kernel/half.h"
#include "kernel/lanes.h"
#include "kernel/stochastic.inl"

namespace clr {
namespace {

// Accesses whole lanes (AllLanes), or the first n elements of a lane (FirstLanes).
struct AllLanes {
  template <class Lane>
  CLR_INLINE_MEMBER int count() const {
    return Lane::width;
  }
  template <class Lane, class Element>
  CLR_INLINE_MEMBER void read(const Element* from, Lane& to) const {
    load(from, to);
  }
  template <class Lane, class Element>
  CLR_INLINE_MEMBER void write(const Lane& from, Element* to) const {
    store(from, to);
  }
  template <class Lane, class Random, class Element>
  CLR_INLINE_MEMBER void write_stochastic(const Lane& from, const Random& random, Element* to) const {
    store_stochastic(from, random, to);
  }
};

struct FirstLanes {
  int n;
  template <class Lane>
  CLR_INLINE_MEMBER int count() const {
    return n;
  }
  template <class Lane, class Element>
  CLR_INLINE_MEMBER void read(const Element* from, Lane& to) const {
    load_first(from, n, to);
  }
  template <class Lane, class Element>
  CLR_INLINE_MEMBER void write(const Lane& from, Element* to) const {
    store_first(from, n, to);
  }
  template <class Lane, class Random, class Element>
  CLR_INLINE_MEMBER void write_stochastic(const Lane& from, const Random& random, Element* to) const {
    store_stochastic_first(from, random, n, to);
  }
};

// Reads elements from `i` on of an array of another dtype than the parameter's. For a float64 parameter they are
// converted one by one: the wider lane has no load for narrower numbers.
template <class Element, class Lane, class Access>
CLR_INLINE void read_as(const void* array, int64_t i, Access access, Lane& to) {
  const Element* const from = static_cast<const Element*>(array) + i;
  if constexpr (sizeof(typename Lane::Real) == sizeof(double)) {
    double wide[Lane::width] = {};
    for (int j = 0; j < access.template count<Lane>(); ++j) wide[j] = static_cast<double>(widened(from[j]));
    load(wide, to);
  } else {
    access.read(from, to);
  }
}

// Writes elements from `i` on of such an array.
template <class Element, class Lane, class Access>
CLR_INLINE void write_as(const Lane& from, void* array, int64_t i, Access access) {
  Element* const to = static_cast<Element*>(array) + i;
  if constexpr (sizeof(typename Lane::Real) == sizeof(double)) {
    double wide[Lane::width];
    store(from, wide);
    for (int j = 0; j < access.template count<Lane>(); ++j) narrow(static_cast<float>(wide[j]), to[j]);
  } else {
    access.write(from, to);
  }
}

template <class Element>
CLR_INLINE void prefetch(const Element* array, int64_t begin, int64_t end);

// Returns the value that is read back after x is stored.
template <class Element, class Lane>
CLR_INLINE Lane as_stored(const Lane& x) {
  if constexpr (sizeof(Element) >= 4) return x;
  Element stored[Lane::width];
  Lane result;
  store(x, stored);
  load(stored, result);
  return result;
}

// The parameter is rounded to nearest even.
template <class E>
struct Nearest {
  using Element = E;
  using Averaged = E;
  Element* parameter;

  CLR_INLINE_MEMBER explicit Nearest(const Slot& slot) : parameter(static_cast<Element*>(slot.parameter)) {}

  template <class Lane, class Access>
  CLR_INLINE_MEMBER void read(int64_t i, Access access, Lane& p) const {
    access.read(parameter + i, p);
  }
  template <class Lane, class Access>
  CLR_INLINE_MEMBER void write(const Lane& p, int64_t i, Access access) const {
    access.write(p, parameter + i);
  }
  template <class Lane, class Access>
  CLR_INLINE_MEMBER Lane written(const Lane& p, int64_t, Access) const {
    return as_stored<Element>(p);
  }
  template <class Access>
  CLR_INLINE_MEMBER bool all_suit(int64_t, Access) const {
    return true;
  }
  CLR_INLINE_MEMBER void prefetch(int64_t begin, int64_t end) const { clr::prefetch(parameter, begin, end); }
};

// The parameter is rounded up or down at random, right on average (core/stochastic_rounding.h).
template <class E>
struct Stochastic {
  using Element = E;
  using Averaged = E;
  Element* parameter;
  uint64_t key;
  int64_t first;  // the place of element 0 in the whole tensor

  CLR_INLINE_MEMBER explicit Stochastic(const Slot& slot)
      : parameter(static_cast<Element*>(slot.parameter)), key(slot.random_key), first(slot.places.first) {}

  template <class Lane, class Access>
  CLR_INLINE_MEMBER void read(int64_t i, Access access, Lane& p) const {
    access.read(parameter + i, p);
  }
  template <class Lane, class Access>
  CLR_INLINE_MEMBER void write(const Lane& p, int64_t i, Access access) const {
    typename RandomOf<Lane>::type random;
    random_from(key, static_cast<uint64_t>(first + i), random);
    access.write_stochastic(p, random, parameter + i);
  }
  template <class Lane, class Access>
  CLR_INLINE_MEMBER Lane written(Lane p, int64_t i, Access access) const {
    access.read(parameter + i, p);
    return p;
  }
  template <class Access>
  CLR_INLINE_MEMBER bool all_suit(int64_t, Access) const {
    return true;
  }
  CLR_INLINE_MEMBER void prefetch(int64_t begin, int64_t end) const { clr::prefetch(parameter, begin, end); }
};

// The weight is the sum of two 16-bit numbers: the parameter and its rounding error.
template <class E>
struct Split {
  using Element = E;
  using Averaged = E;
  Element *parameter, *rest;

  CLR_INLINE_MEMBER explicit Split(const Slot& slot)
      : parameter(static_cast<Element*>(slot.parameter)), rest(static_cast<Element*>(slot.companion)) {}

  // Ignores a rest of more than half a unit in the last place: somebody has changed the parameter since.
  template <class Lane, class Access>
  CLR_INLINE_MEMBER void read(int64_t i, Access access, Lane& p) const {
    Lane high, low;
    access.read(parameter + i, high);
    access.read(rest + i, low);
    // The factor keeps a rest of half a unit short of the tie. The next larger rest of either format still lies past
    // the tie.
    const Lane within = fused(Lane::all(1 - 0x1p-12f), low, high);
    p = where_equal(as_stored<Element>(within), high, high + low, high);
  }
  template <class Lane, class Access>
  CLR_INLINE_MEMBER void write(const Lane& p, int64_t i, Access access) const {
    access.write(p, parameter + i);
    access.write(p - as_stored<Element>(p), rest + i);
  }
  template <class Lane, class Access>
  CLR_INLINE_MEMBER Lane written(Lane p, int64_t i, Access access) const {
    access.read(parameter + i, p);
    return p;
  }
  template <class Access>
  CLR_INLINE_MEMBER bool all_suit(int64_t i, Access access) const {
    return access.suits(rest, i);
  }
  CLR_INLINE_MEMBER void prefetch(int64_t begin, int64_t end) const {
    clr::prefetch(parameter, begin, end);
    clr::prefetch(rest, begin, end);
  }
};

// The weight is kept in float32 next to the parameter, which is a copy rounded to nearest.
template <class E>
struct Master {
  using Element = E;
  using Averaged = float;
  Element* parameter;
  float* weight;

  CLR_INLINE_MEMBER explicit Master(const Slot& slot)
      : parameter(static_cast<Element*>(slot.parameter)), weight(static_cast<float*>(slot.companion)) {}

  // If the parameter is not the weight's copy, somebody has changed it since: it becomes the weight.
  template <class Lane, class Access>
  CLR_INLINE_MEMBER void read(int64_t i, Access access, Lane& p) const {
    Lane copy;
    access.read(weight + i, p);
    access.read(parameter + i, copy);
    p = where_equal(as_stored<Element>(p), copy, p, copy);
  }
  template <class Lane, class Access>
  CLR_INLINE_MEMBER void write(const Lane& p, int64_t i, Access access) const {
    access.write(p, weight + i);
    access.write(p, parameter + i);
  }
  template <class Lane, class Access>
  CLR_INLINE_MEMBER Lane written(const Lane& p, int64_t, Access) const {
    return p;
  }
  template <class Access>
  CLR_INLINE_MEMBER bool all_suit(int64_t i, Access access) const {
    return access.suits(weight, i);
  }
  CLR_INLINE_MEMBER void prefetch(int64_t begin, int64_t end) const {
    clr::prefetch(parameter, begin, end);
    clr::prefetch(weight, begin, end);
  }
};

}  // namespace
}  // namespace clr
