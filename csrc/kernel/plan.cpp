#include "kernel/plan.h"

#include <algorithm>
#include <functional>

#include "core/prefetch.h"

namespace clr {

namespace {

std::int64_t bytes_of(const Slot& slot) { return slot.size * size_of(slot.dtype); }

// Returns the first element at or after `byte` of the slot's parameter that starts a cache line, or the slot's size.
std::int64_t aligned_element(const Slot& slot, std::int64_t byte) {
  const auto address = reinterpret_cast<std::uintptr_t>(slot.parameter) + static_cast<std::uintptr_t>(byte);
  const auto past_line = static_cast<std::int64_t>(address % kCacheLine);
  const std::int64_t aligned = past_line == 0 ? byte : byte + std::int64_t{kCacheLine} - past_line;
  const std::int64_t element = (aligned + size_of(slot.dtype) - 1) / size_of(slot.dtype);
  return std::min(element, slot.size);
}

}  // namespace

std::int64_t StepPlan::parameter_bytes() const {
  std::int64_t total = 0;
  for (const Slot& slot : slots) total += bytes_of(slot);
  return total;
}

void StepPlan::cut(int parts, std::vector<Cut>& cuts) const {
  cuts.clear();
  cuts.push_back({0, 0});
  const std::int64_t total = parameter_bytes();
  std::int64_t before = 0;  // bytes of the slots before `slot`
  std::size_t slot = 0;
  for (int part = 1; part < parts; ++part) {
    const std::int64_t target = total / parts * part;
    while (slot < slots.size() && before + bytes_of(slots[slot]) <= target) before += bytes_of(slots[slot++]);
    cuts.push_back({slot, slot < slots.size() ? aligned_element(slots[slot], target - before) : 0});
  }
  cuts.push_back({slots.size(), 0});
}

bool StepPlan::has_overlap() const {
  std::vector<Range> ranges = copied;
  ranges.reserve(copied.size() + 2 * slots.size());
  for (const Slot& slot : slots) {
    if (slot.size == 0) continue;
    const auto add = [&](const void* array, DType dtype) {
      if (array != nullptr) ranges.push_back({array, static_cast<const char*>(array) + slot.size * size_of(dtype)});
    };
    add(slot.parameter, slot.dtype);
    add(slot.buffer, slot.buffer_dtype);
    add(slot.average, companion_dtype(slot.dtype, slot.storage));
    add(slot.companion, companion_dtype(slot.dtype, slot.storage));
    add(slot.unscaled, slot.gradient_dtype);
  }
  const std::less<const void*> before;
  std::sort(ranges.begin(), ranges.end(), [&](const Range& a, const Range& b) { return before(a.begin, b.begin); });
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    if (before(ranges[i].begin, ranges[i - 1].end)) return true;
  }
  return false;
}

}  // namespace clr
