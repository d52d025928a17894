// An update touches the elements it was told to, whatever their number and alignment, and not a byte more.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support/bits.h"
#include "support/guarded_array.h"
#include "support/isas.h"
#include "support/update_reference.h"

using clr_test::GuardedArray;
using clr_test::Random;
using clr_test::Variant;

namespace {

// Over three blocks of the widest instruction set: 4 registers of 16 floats.
constexpr std::size_t kMostElements = 3 * 64 + 17;

constexpr Variant kPlain = {false, false, true, false, 0.1, 5e-4};
constexpr Variant kFirst = {true, true, true, true, 0.0, 0.0};
constexpr Variant kNoBuffer = {false, false, false, true, 0.0, 5e-4};

// Three arrays, each with its own distance to the faulting page.
template <class T>
class Bench {
 public:
  using Element = typename T::Element;

  explicit Bench(const clr::Isa& isa) : isa_(isa) {}

  void check(std::size_t size, std::size_t begin, std::size_t end, const std::size_t (&gaps)[3], const Variant& v) {
    std::vector<Element> p = clr_test::numbers<T>(size, random_, 0);
    const std::vector<Element> g = clr_test::numbers<T>(size, random_, 0);
    std::vector<Element> m = clr_test::numbers<T>(size, random_, 0);
    parameter_.put(p, gaps[0]);
    gradient_.put(g, gaps[1]);
    buffer_.put(m, gaps[2]);
    const clr::GroupValues group = clr_test::group_of(v);
    const clr::Slot slot = {parameter_.data(),
                            gradient_.data(),
                            v.has_buffer ? buffer_.data() : nullptr,
                            static_cast<std::int64_t>(size),
                            0,
                            T::dtype,
                            v.first};
    isa_.kernels->update({}, group, slot, {static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end)});
    for (std::size_t i = begin; i < end; ++i) {
      clr_test::reference_update<T>(clr_test::has_fma(isa_), group, v, p[i], g[i], m[i]);
    }
    const bool right = parameter_.values() == p && gradient_.values() == g && buffer_.values() == m;
    const bool alive = parameter_.canaries_live() && gradient_.canaries_live() && buffer_.canaries_live();
    if (right && alive) return;
    FAIL_CHECK(std::string(isa_.name), ", ", std::string(T::name), ", size ", size, ", elements ", begin, " to ", end,
               ", gaps ", gaps[0], " ", gaps[1], " ", gaps[2], ", ", described(v),
               alive ? ": a wrong value" : ": wrote outside its arrays");
  }

 private:
  clr::Isa isa_;
  Random random_{1};
  GuardedArray<Element> parameter_{kMostElements}, gradient_{kMostElements}, buffer_{kMostElements};
};

}  // namespace

#define CLR_ALL_TYPES clr_test::Float32, clr_test::Float64, clr_test::Bfloat16, clr_test::Float16

TEST_CASE_TEMPLATE("update bounds: every size from nothing to three blocks at the edge of memory", T, CLR_ALL_TYPES) {
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    Bench<T> bench(isa);
    for (std::size_t size = 0; size <= kMostElements; ++size) {
      for (const Variant& v : {kPlain, kFirst, kNoBuffer}) bench.check(size, 0, size, {0, 0, 0}, v);
    }
  }
}

TEST_CASE_TEMPLATE("update bounds: every misalignment of parameter gradient and buffer", T, CLR_ALL_TYPES) {
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    Bench<T> bench(isa);
    for (std::size_t gap = 0; gap <= GuardedArray<float>::kMostGap; ++gap) {
      for (const std::size_t size : {1u, 7u, 33u, 100u, 150u}) {
        bench.check(size, 0, size, {gap, 0, 0}, kPlain);
        bench.check(size, 0, size, {0, gap, 1}, kPlain);
        bench.check(size, 0, size, {1, 2, gap}, kPlain);
      }
    }
  }
}

TEST_CASE_TEMPLATE("update bounds: a range inside a slot leaves the rest alone", T, CLR_ALL_TYPES) {
  Random random(2);
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    Bench<T> bench(isa);
    for (int i = 0; i < 500; ++i) {
      const std::size_t size = random.below(kMostElements + 1);
      const std::size_t begin = random.below(size + 1);
      const std::size_t end = begin + random.below(size - begin + 1);
      bench.check(size, begin, end, {random.below(9), random.below(9), random.below(9)}, kPlain);
    }
  }
}
