#include "cpu/shared_norms.h"

#include <algorithm>
#include <cmath>

#include "kernel/executor.h"

namespace clr {

namespace {

// Returns the squares of all slots that go into the sum at this place.
double squares_of(const StepPlan& plan, Norms& norms, std::uint32_t sum) {
  std::vector<NormPart>& parts = norms.of_one_sum;
  parts.assign(norms.chunk_count, {});
  for (std::size_t i = 0; i < plan.slots.size(); ++i) {
    if (plan.shared.slots[i].sum != sum) continue;
    const auto first = static_cast<std::ptrdiff_t>(norms.first_chunks[i]);
    const auto count = static_cast<std::ptrdiff_t>(norm_chunks(plan.slots[i].size));
    std::copy_n(norms.parts.begin() + first, count, parts.begin() + first);
  }
  return combined(parts.data(), parts.size()).squares.hi;
}

}  // namespace

void put_numbers(const StepPlan& plan, Norms& norms) {
  const SharedNumbers& shared = plan.shared;
  std::fill_n(shared.numbers, shared.count, 0.0);
  shared.numbers[kNonfinite] = !norms.total.finite;
  shared.numbers[kUpdates] = 1.0;
  for (const std::uint32_t sum : shared.sums) shared.numbers[sum] = squares_of(plan, norms, sum);
  for (std::size_t i = 0; i < plan.slots.size(); ++i) {
    if (shared.slots[i].sum == 0 || shared.slots[i].ratio == 0) continue;
    double* const ratio = shared.numbers + shared.slots[i].ratio;
    ratio[0] = norms.slots[i].parameter * norms.slots[i].parameter;
    ratio[1] = norms.slots[i].gradient * norms.slots[i].gradient;
  }
}

void take_numbers(const SharedNumbers& shared, Norms& norms) {
  if (shared.numbers[kRefused] != 0.0) refuse_for_another();
  norms.total = {total_of(shared.numbers, shared.sums.data(), shared.sums.size()), shared.numbers[kNonfinite] == 0.0};
  for (std::size_t i = 0; i < shared.slots.size(); ++i) {
    if (shared.slots[i].ratio == 0) continue;
    const double* const ratio = shared.numbers + shared.slots[i].ratio;
    norms.slots[i] = {std::sqrt(ratio[0]), std::sqrt(ratio[1])};
  }
}

}  // namespace clr
