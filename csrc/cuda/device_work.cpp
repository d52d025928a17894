#include "cuda/device_work.h"

#include <algorithm>

namespace clr {

namespace {

bool same(const Slot& a, const Slot& b) {
  return a.parameter == b.parameter && a.gradient == b.gradient && a.buffer == b.buffer && a.size == b.size &&
         a.group == b.group && a.dtype == b.dtype && a.buffer_dtype == b.buffer_dtype &&
         a.gradient_dtype == b.gradient_dtype && a.storage == b.storage && a.trusted == b.trusted &&
         a.average == b.average && a.companion == b.companion && a.unscaled == b.unscaled &&
         a.random_key == b.random_key && a.places.first == b.places.first && a.places.run == b.places.run &&
         a.places.stride == b.places.stride;
}

bool same(const SharedPlaces& a, const SharedPlaces& b) { return a.sum == b.sum && a.ratio == b.ratio; }

bool same_size(const Slot& a, const Slot& b) { return a.size == b.size; }

template <class T, class Same>
bool all(const std::vector<T>& a, const std::vector<T>& b, Same same) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same);
}

}  // namespace

bool are_same(const std::vector<Slot>& a, const std::vector<Slot>& b) {
  return all(a, b, [](const Slot& x, const Slot& y) { return same(x, y); });
}

void WorkTable::set(DeviceTables& tables, CUstream stream, const std::vector<Slot>& slots, const SharedNumbers& shared,
                    bool in_order, std::uint32_t& copies) {
  in_order_ = in_order;
  if (memory_.size() == 0 || !has(slots)) {
    copy_slots(tables, stream, slots);
    device_.number = ++copies;
  }
  copy_shared(tables, stream, shared);
}

// Finds places for slots, chunks and scratch in the memory.
void WorkTable::lay_out(DeviceTables& tables, const std::vector<Slot>& slots) {
  cut_into_chunks(slots, chunks_);
  const std::size_t chunk_count = chunks_.by_number.size();
  const std::size_t parts_at = slots.size() * sizeof(Slot);
  const std::size_t first_at = parts_at + 2 * chunk_count * sizeof(NormPart);
  const std::size_t lengths_at = first_at + slots.size() * sizeof(std::uint64_t);
  const std::size_t ended_at = lengths_at + slots.size() * sizeof(SlotLengths);
  const std::size_t chunks_at = ended_at + slots.size() * sizeof(std::uint32_t);
  tables.grow(memory_, chunks_at + 2 * chunk_count * sizeof(DeviceChunk));
  device_.slots = memory_.at<const Slot>();
  device_.chunks = memory_.at<const DeviceChunk>(chunks_at);
  device_.by_size = device_.chunks + chunk_count;
  device_.slot_count = static_cast<std::uint32_t>(slots.size());
  device_.chunk_count = static_cast<std::uint32_t>(chunk_count);
  device_.shared_count = chunks_.shared_count;
  device_.parts = memory_.at<NormPart>(parts_at);
  device_.first_chunks = memory_.at<const std::uint64_t>(first_at);
  device_.lengths = memory_.at<SlotLengths>(lengths_at);
  device_.ended = memory_.at<std::uint32_t>(ended_at);
}

void WorkTable::copy_slots(DeviceTables& tables, CUstream stream, const std::vector<Slot>& slots) {
  const bool other_chunks = memory_.size() == 0 || !all(slots, slots_, same_size);
  slots_.clear();  // until all is copied
  if (other_chunks) {
    lay_out(tables, slots);
    const auto put = [&](const auto* at, const auto& table) {
      tables.copy(stream, reinterpret_cast<CUdeviceptr>(at), table.data(), table.size() * sizeof(table[0]));
    };
    put(device_.chunks, chunks_.by_number);
    put(device_.by_size, chunks_.by_size);
    put(device_.first_chunks, chunks_.first);
    tables.clear(stream, reinterpret_cast<CUdeviceptr>(device_.ended), slots.size() * sizeof(std::uint32_t));
  }
  tables.copy(stream, memory_.address(), slots.data(), slots.size() * sizeof(Slot));
  const bool alike = !slots.empty() && std::all_of(slots.begin(), slots.end(),
                                                   [&](const Slot& slot) { return slot.dtype == slots.front().dtype; });
  one_dtype_ = alike ? std::optional<DType>(slots.front().dtype) : std::nullopt;
  slots_ = slots;
}

void WorkTable::copy_shared(DeviceTables& tables, CUstream stream, const SharedNumbers& shared) {
  device_.numbers = shared.numbers;
  if (shared.numbers == nullptr) return;
  device_.number_count = static_cast<std::uint32_t>(shared.count);
  const auto same_places = [](const SharedPlaces& x, const SharedPlaces& y) { return same(x, y); };
  if (all(shared.slots, places_, same_places) && shared.sums == sums_) return;
  places_.clear();  // until all is copied
  sums_.clear();
  const std::size_t bytes = shared.slots.size() * sizeof(SharedPlaces);
  tables.grow(shared_memory_, bytes + shared.sums.size() * sizeof(std::uint32_t));
  tables.copy(stream, shared_memory_.address(), shared.slots.data(), bytes);
  tables.copy(stream, shared_memory_.address() + bytes, shared.sums.data(), shared.sums.size() * sizeof(std::uint32_t));
  device_.places = shared_memory_.at<const SharedPlaces>();
  device_.sums = shared_memory_.at<const std::uint32_t>(bytes);
  device_.sum_count = static_cast<std::uint32_t>(shared.sums.size());
  places_ = shared.slots;
  sums_ = shared.sums;
}

// A block that works alone draws its work in order, chunk by chunk.
DeviceWork WorkTable::updated() const {
  DeviceWork work = device_;
  if (in_order_) {
    work.by_size = work.chunks;
    work.shared_count = work.chunk_count;
  }
  return work;
}

std::optional<DType> WorkTable::plain_dtype(const DeviceStep& step) const {
  const bool plain = step.grad_scale == nullptr && step.max_norm == 0.0 && !step.trusts && !step.has_rates &&
                     std::all_of(slots_.begin(), slots_.end(), [&](const Slot& slot) {
                       return slot.size == 0 || is_bare_update(step.gradients, slot);
                     });
  return plain ? one_dtype_ : std::nullopt;
}

}  // namespace clr
