// Copies between two layouts of the same elements.
#include <doctest/doctest.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include "kernel/strided.h"

namespace {

// The place of element number `i` in the order of dimensions, the last the fastest.
std::int64_t place(const std::vector<clr::StridedDimension>& dimensions, std::int64_t i,
                   std::int64_t clr::StridedDimension::* stride) {
  std::int64_t at = 0;
  for (std::size_t d = dimensions.size(); d-- > 0; i /= dimensions[d].size) {
    at += i % dimensions[d].size * dimensions[d].*stride;
  }
  return at;
}

template <class Element>
void check_all() {
  const std::vector<std::vector<clr::StridedDimension>> layouts = {
      {},                                     // one number
      {{7, 1, 3}},                            // gaps
      {{4, 5, 1}, {5, 1, 4}},                 // turned
      {{3, 20, 0}, {5, 4, 1}, {4, 1, 5}},     // expanded, and turned
      {{2, 1, 60}, {3, 40, 20}, {20, 2, 1}},  // another order of dimensions
      {{1, 99, 7}, {6, 2, 1}},                // a size of one says nothing
  };
  for (const auto& dimensions : layouts) {
    std::int64_t count = 1;
    for (const auto& dimension : dimensions) count *= dimension.size;
    std::vector<Element> from(200), to(200, static_cast<Element>(7));
    std::iota(from.begin(), from.end(), static_cast<Element>(100));
    std::vector<Element> expected = to;
    for (std::int64_t i = 0; i < count; ++i) {
      expected[static_cast<std::size_t>(place(dimensions, i, &clr::StridedDimension::to))] =
          from[static_cast<std::size_t>(place(dimensions, i, &clr::StridedDimension::from))];
    }
    clr::copy_strided(dimensions, sizeof(Element), to.data(), from.data());
    CHECK(to == expected);
  }
}

}  // namespace

TEST_CASE("strided: every element once, and nothing between them") {
  check_all<std::uint16_t>();
  check_all<std::uint32_t>();
  check_all<std::uint64_t>();
}

TEST_CASE("strided: nothing is touched where a dimension is empty") {
  clr::copy_strided({{3, 1, 1}, {0, 3, 3}}, 4, nullptr, nullptr);
}
