// The whole update touches the elements it was told to in all of its arrays, and not a byte more, however it is cut.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "support/guarded_array.h"
#include "support/whole_tensors.h"

using clr_test::Around;
using clr_test::GuardedArray;
using clr_test::Random;
using clr_test::Variant;
using clr_test::WholeTensors;

namespace {

// Over two blocks of the widest instruction set: 4 registers of 16 floats.
constexpr std::size_t kMostElements = 2 * 64 + 17;

constexpr Variant kMomentum = {true, false, true, false, 0.1, 5e-4};

Around everything() {
  Around around;
  around.gradients = {0.3, 0.7, 0.25};
  around.writes_unscaled = true;
  around.has_average = true;
  around.average_weight = 0.1;
  return around;
}

Around bare_average() {
  Around around;
  around.has_gradient = false;
  around.has_average = true;
  around.average_weight = 0.7;
  return around;
}

// Storage and buffer dtype may be all that is not plain.
Around nothing() { return {}; }

// Six arrays, each with its own distance to the faulting page.
template <class K>
class Bench {
 public:
  explicit Bench(const clr::Isa& isa) : isa_(isa) {}

  void check(std::size_t size, std::size_t begin, std::size_t end, const std::size_t (&gaps)[6], const Around& around) {
    WholeTensors<K> want(size, random_, 0);
    parameter_.put(want.parameter, gaps[0]);
    gradient_.put(want.gradient, gaps[1]);
    unscaled_.put(want.unscaled, gaps[2]);
    buffer_.put(want.buffer, gaps[3]);
    companion_.put(want.companion, gaps[4]);
    average_.put(want.average, gaps[5]);
    const clr::Slot slot = clr_test::slot_of<K>(kMomentum, around, size, parameter_.data(), gradient_.data(),
                                                unscaled_.data(), buffer_.data(), companion_.data(), average_.data());
    clr_test::update_slot(isa_, kMomentum, around, slot, begin, end);
    want.update_by_reference(clr_test::has_fma(isa_), kMomentum, around, begin, end);
    const bool right = parameter_.values() == want.parameter && gradient_.values() == want.gradient &&
                       unscaled_.values() == want.unscaled && buffer_.values() == want.buffer &&
                       companion_.values() == want.companion && average_.values() == want.average;
    const bool alive = parameter_.canaries_live() && gradient_.canaries_live() && unscaled_.canaries_live() &&
                       buffer_.canaries_live() && companion_.canaries_live() && average_.canaries_live();
    if (right && alive) return;
    FAIL_CHECK(std::string(isa_.name), ", size ", size, ", elements ", begin, " to ", end, ", gaps ", gaps[0], " ",
               gaps[1], " ", gaps[2], " ", gaps[3], " ", gaps[4], " ", gaps[5], ", ", clr_test::described(around),
               alive ? ": a wrong value" : ": wrote outside its arrays");
  }

 private:
  using Element = typename K::Parameter::Element;
  clr::Isa isa_;
  Random random_{1};
  GuardedArray<Element> parameter_{kMostElements}, gradient_{kMostElements}, unscaled_{kMostElements};
  GuardedArray<typename K::Buffer::Element> buffer_{kMostElements};
  GuardedArray<typename K::Companion::Element> companion_{kMostElements}, average_{kMostElements};
};

}  // namespace

TEST_CASE_TEMPLATE("whole bounds: every size from nothing to two blocks at the edge of memory", K, CLR_ALL_KINDS) {
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    Bench<K> bench(isa);
    for (std::size_t size = 0; size <= kMostElements; ++size) {
      for (const Around& around : {everything(), bare_average(), nothing()}) {
        bench.check(size, 0, size, {0, 0, 0, 0, 0, 0}, around);
      }
    }
  }
}

TEST_CASE_TEMPLATE("whole bounds: every misalignment of every array", K, CLR_ALL_KINDS) {
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    Bench<K> bench(isa);
    for (std::size_t gap = 0; gap <= GuardedArray<float>::kMostGap; ++gap) {
      for (const std::size_t size : {7u, 100u}) {
        bench.check(size, 0, size, {gap, 0, 1, 0, gap, 0}, everything());
        bench.check(size, 0, size, {0, gap, 0, 1, 0, gap}, everything());
        bench.check(size, 0, size, {1, 2, gap, gap, 3, 5}, everything());
      }
    }
  }
}

TEST_CASE_TEMPLATE("whole bounds: a range inside a slot leaves the rest alone", K, CLR_ALL_KINDS) {
  Random random(2);
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    Bench<K> bench(isa);
    for (int i = 0; i < 200; ++i) {
      const std::size_t size = random.below(kMostElements + 1);
      const std::size_t begin = random.below(size + 1);
      const std::size_t end = begin + random.below(size - begin + 1);
      bench.check(
          size, begin, end,
          {random.below(9), random.below(9), random.below(9), random.below(9), random.below(9), random.below(9)},
          i % 4 == 0 ? bare_average() : everything());
    }
  }
}

// Past the size from which on memory is asked for ahead. Random numbers go by an element's place in the slot.
TEST_CASE_TEMPLATE("whole bounds: a large slot gives the same bits in one piece and in many", K, CLR_ALL_KINDS) {
  const std::size_t size = 512 * 1024 / sizeof(typename K::Parameter::Element) + 1037;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    Random random(3);
    WholeTensors<K> whole(size, random, 0);
    WholeTensors<K> pieces = whole;
    whole.update(isa, kMomentum, everything(), 0, size);
    for (std::size_t begin = 0, end = 0; begin < size; begin = end) {
      end = std::min(size, begin + 1 + random.below(3000));
      pieces.update(isa, kMomentum, everything(), begin, end);
    }
    INFO(std::string(isa.name));
    CHECK(clr_test::differences(whole, pieces) == "");
  }
}
