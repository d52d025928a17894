// Where cycles end, counted one step after the other.
#include <doctest/doctest.h>

#include <vector>

#include "core/cycles.h"
#include "support/bits.h"

using clr::CyclePosition;
using clr::CycleSpan;
using clr_test::Random;

namespace {

std::vector<CycleSpan> random_spans(Random& random) {
  std::vector<CycleSpan> spans;
  std::uint64_t first = 0, complete = 0;
  for (std::uint64_t left = 1 + random.below(6); left > 0; --left) {
    const CycleSpan span = {first, random.below(8), random.below(2) == 0, complete};
    const std::uint64_t steps = 1 + random.below(30);
    if (span.length != 0) complete += span.repeats ? steps / span.length : (steps >= span.length ? 1 : 0);
    spans.push_back(span);
    first += steps;
  }
  return spans;
}

}  // namespace

TEST_CASE("cycles: as counted step by step") {
  Random random(2);
  for (int trial = 0; trial < 300; ++trial) {
    const std::vector<CycleSpan> spans = random_spans(random);
    std::uint64_t complete = 0, own = 0;
    std::size_t span = 0;
    for (std::uint64_t step = 0; step < 220; ++step) {
      const CyclePosition position = clr::cycle_position({spans.data(), spans.size()}, step);
      CAPTURE(step);
      bool at_end = false;
      if (step > 0) {  // the update before this step was made within `span`
        if (span + 1 < spans.size() && spans[span + 1].first == step - 1) {
          ++span;
          own = 0;
        }
        ++own;
        const std::uint64_t length = spans[span].length;
        at_end = length != 0 && own % length == 0 && (spans[span].repeats || own == length);
        complete += at_end ? 1 : 0;
      }
      CHECK(position.at_end == at_end);
      CHECK(position.complete == complete);
    }
  }
}

TEST_CASE("cycles: the largest steps") {
  const CycleSpan spans[] = {{0, 3, true, 0}, {UINT64_MAX - 2, 1, true, 7}};
  CHECK(clr::cycle_position({spans, 2}, UINT64_MAX - 2).complete == (UINT64_MAX - 2) / 3);
  CHECK(clr::cycle_position({spans, 2}, UINT64_MAX).complete == 9);
  CHECK(clr::cycle_position({spans, 2}, UINT64_MAX).at_end);
}
