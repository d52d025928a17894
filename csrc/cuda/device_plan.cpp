#include "cuda/device_plan.h"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "cuda/chunks.h"
#include "cuda/memory.h"

namespace clr {

namespace {

// Compares the bytes: a new setting needs no line here, and there is no padding.
bool same(const GroupSettings& a, const GroupSettings& b) {
  const auto* const bytes = reinterpret_cast<const unsigned char*>(&a);
  return std::equal(bytes, bytes + sizeof(GroupSettings), reinterpret_cast<const unsigned char*>(&b));
}

bool same(const Slot& a, const Slot& b) {
  return a.parameter == b.parameter && a.gradient == b.gradient && a.buffer == b.buffer && a.size == b.size &&
         a.group == b.group && a.dtype == b.dtype && a.buffer_dtype == b.buffer_dtype &&
         a.gradient_dtype == b.gradient_dtype && a.storage == b.storage && a.trusted == b.trusted &&
         a.average == b.average && a.companion == b.companion && a.unscaled == b.unscaled &&
         a.random_key == b.random_key && a.places.first == b.places.first && a.places.run == b.places.run &&
         a.places.stride == b.places.stride;
}

bool same(const SharedPlaces& a, const SharedPlaces& b) { return a.sum == b.sum && a.ratio == b.ratio; }

template <class T>
bool all_same(const std::vector<T>& a, const std::vector<T>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const T& x, const T& y) { return same(x, y); });
}

bool all_of_one_size(const std::vector<Slot>& a, const std::vector<Slot>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Slot& x, const Slot& y) { return x.size == y.size; });
}

// A table of slots, cut into chunks, and the arguments that describe it to a launch.
struct Work {
  std::vector<Slot> slots;  // as last copied, as are the next two
  std::vector<SharedPlaces> places;
  std::vector<std::uint32_t> sums;
  DeviceMemory memory, shared_memory;
  DeviceWork device{};
  std::optional<DType> one_dtype;  // of all slots; none if their dtypes differ, or there are no slots
  bool in_order = false;           // True if one block must update the slots one after another
};

class Plan final : public DevicePlan {
 public:
  Plan(int ordinal, Wait wait);

  void set_groups(void* stream, const std::vector<GroupSettings>& settings, const Cycles& cycles, bool other_schedules,
                  std::uint64_t generation) override;
  bool has_groups(const std::vector<GroupSettings>& settings) const override { return all_same(settings, settings_); }
  void set_progress(void* stream, const std::vector<GroupProgress>& progress) override;
  void set_parameters(void* stream, std::size_t count) override;
  void set_state(void* stream, const std::vector<StateChange>& changes) override;
  void set_work(void* stream, const std::vector<Slot>& slots, const SharedNumbers& shared, bool in_order) override;
  void set_captured_work(const std::vector<Slot>& slots, const SharedNumbers& shared, bool in_order) override;
  bool has_work(const std::vector<Slot>& slots) const override { return all_same(slots, work_->slots); }
  void measure(void* stream, const DeviceStep& step) override;
  void share(void* stream, const DeviceStep& step) override;
  void step(void* stream, const DeviceStep& step) override;
  DeviceProgress read(void* stream) override;
  DeviceReport reported() const override;

 private:
  void grow(DeviceMemory& memory, std::size_t bytes);
  void copy(void* stream, CUdeviceptr to, const void* from, std::size_t bytes);
  void copy_pieces(void* stream, const std::vector<GroupSettings>& settings);
  void copy_settings(void* stream, const std::vector<GroupSettings>& settings, std::size_t first, std::size_t last);
  void copy_state(void* stream);
  void lay_out(Work& work, const std::vector<Slot>& slots);
  void copy_work(void* stream, Work& work, const std::vector<Slot>& slots);
  void copy_shared(void* stream, Work& work, const SharedNumbers& shared);
  void forget_marks(void* stream);
  void wait_for_own_stream();
  bool is_plain(const DeviceStep& step) const;
  void launch(CUfunction kernel, std::uint64_t blocks, int threads, void* stream, const DeviceWork& work,
              const DeviceStep& step);

  const Device& device_;
  Wait wait_;
  OwnStream beside_;
  Staging staging_;
  Event stepped_;      // behind the last step that was not captured
  Event read_behind_;  // behind what the reader's stream had to do
  DeviceMemory pieces_, spans_, settings_table_, progress_, holds_, state_table_;
  std::deque<DeviceMemory> retired_;  // outgrown memory that a graph may still use
  PinnedMemory report_, answer_;
  DeviceState state_{};                         // the host's part of it, as last copied
  std::vector<GroupSettings> settings_;         // as last set
  std::map<const Piece*, std::size_t> places_;  // where the host's pieces lie in pieces_
  std::size_t parameters_ = 0, groups_ = 0;
  std::uint64_t generation_ = 0;  // of the groups
  Cycles cycles_ = {};            // of the first of them, in the device's memory
  Chunks chunks_;                 // scratch
  Work eager_;
  std::deque<Work> captured_;
  std::uint32_t works_ = 0;  // tables of slots that were copied so far
  Work* work_ = &eager_;     // of the next launches
};

Plan::Plan(int ordinal, Wait wait)
    : device_(Device::at(ordinal)),
      wait_(wait),
      beside_(device_),
      staging_(device_, wait),
      stepped_(device_),
      read_behind_(device_) {
  device_.kernels();
  report_ = PinnedMemory(device_, sizeof(DeviceReport));
  *report_.at<DeviceReport>() = {};
  state_.report = report_.at<DeviceReport>();
}

// Enlarges `memory` if it is too small. Its contents are then lost.
void Plan::grow(DeviceMemory& memory, std::size_t bytes) {
  if (memory.size() >= bytes) return;
  DeviceMemory larger(device_, std::max(bytes, 2 * memory.size()));
  if (memory.size() != 0) retired_.push_back(std::move(memory));
  memory = std::move(larger);
}

void Plan::copy(void* stream, CUdeviceptr to, const void* from, std::size_t bytes) {
  if (bytes != 0) staging_.copy(static_cast<CUstream>(stream), to, from, bytes);
}

// Copies each schedule once, however many groups follow it.
void Plan::copy_pieces(void* stream, const std::vector<GroupSettings>& settings) {
  std::vector<Piece> all;
  places_.clear();
  for (const GroupSettings& group : settings) {
    if (!places_.emplace(group.pieces, all.size()).second) continue;
    all.insert(all.end(), group.pieces, group.pieces + group.piece_count);
  }
  grow(pieces_, all.size() * sizeof(Piece));
  copy(stream, pieces_.address(), all.data(), all.size() * sizeof(Piece));
}

void Plan::set_groups(void* stream, const std::vector<GroupSettings>& settings, const Cycles& cycles,
                      bool other_schedules, std::uint64_t generation) {
  generation_ = generation;
  std::size_t first = 0, last = settings.size();
  if (other_schedules || settings.size() != settings_.size()) {
    copy_pieces(stream, settings);
    grow(spans_, cycles.count * sizeof(CycleSpan));
    copy(stream, spans_.address(), cycles.spans, cycles.count * sizeof(CycleSpan));
    cycles_ = {spans_.at<const CycleSpan>(), cycles.count};
    grow(settings_table_, settings.size() * sizeof(GroupSettings));
  } else {
    while (first < last && same(settings[first], settings_[first])) ++first;
    while (last > first && same(settings[last - 1], settings_[last - 1])) --last;
  }
  settings_.clear();  // until all is copied
  copy_settings(stream, settings, first, last);
  settings_ = settings;
}

void Plan::copy_settings(void* stream, const std::vector<GroupSettings>& settings, std::size_t first,
                         std::size_t last) {
  std::vector<GroupSettings> rows(settings.begin() + static_cast<std::ptrdiff_t>(first),
                                  settings.begin() + static_cast<std::ptrdiff_t>(last));
  for (GroupSettings& row : rows) row.pieces = pieces_.at<const Piece>(places_.at(row.pieces) * sizeof(Piece));
  copy(stream, settings_table_.address() + first * sizeof(GroupSettings), rows.data(),
       rows.size() * sizeof(GroupSettings));
}

void Plan::set_progress(void* stream, const std::vector<GroupProgress>& progress) {
  std::vector<GroupProgress> both = progress;  // the host does not know which one will be in force
  both.insert(both.end(), progress.begin(), progress.end());
  grow(progress_, both.size() * sizeof(GroupProgress));
  groups_ = 0;  // until all is copied
  copy(stream, progress_.address(), both.data(), both.size() * sizeof(GroupProgress));
  groups_ = progress.size();
}

void Plan::set_parameters(void* stream, std::size_t count) {
  const Driver& driver = Driver::get();
  const Device::Current current(device_);
  grow(holds_, 2 * count);
  parameters_ = count;
  driver.check(driver.memset_d8_async(holds_.address(), 0, holds_.size(), static_cast<CUstream>(stream)),
               "cuMemsetD8Async");
  forget_marks(stream);
}

// Makes the device mark again which buffers and averages hold numbers.
void Plan::forget_marks(void* stream) {
  if (state_table_.size() == 0) return;
  const Driver& driver = Driver::get();
  const Device::Current current(device_);
  driver.check(driver.memset_d8_async(state_table_.address() + offsetof(DeviceState, marked), 0,
                                      sizeof(DeviceState::marked), static_cast<CUstream>(stream)),
               "cuMemsetD8Async");
}

// Copies neighbouring flags together.
void Plan::set_state(void* stream, const std::vector<StateChange>& changes) {
  if (!changes.empty()) forget_marks(stream);
  std::map<std::size_t, char> bytes;
  for (const StateChange& change : changes) {
    bytes[change.position + (change.is_average ? holds_.size() / 2 : 0)] = change.holds ? 1 : 0;
  }
  std::vector<char> run;
  for (auto byte = bytes.begin(); byte != bytes.end();) {
    const std::size_t first = byte->first;
    run.clear();
    for (; byte != bytes.end() && byte->first == first + run.size(); ++byte) run.push_back(byte->second);
    copy(stream, holds_.address() + first, run.data(), run.size());
  }
}

// Copies the host's part of the device's state if it has changed.
void Plan::copy_state(void* stream) {
  const Driver& driver = Driver::get();
  const Device::Current current(device_);
  DeviceState state = state_;
  state.settings = settings_table_.at<const GroupSettings>();
  state.progress = progress_.at<GroupProgress>();
  state.group_count = settings_.size();
  state.generation = generation_;
  const bool averages_at_ends = std::any_of(settings_.begin(), settings_.end(), [](const GroupSettings& group) {
    return group.averaging == Averaging::at_cycle_ends;
  });
  state.cycles = averages_at_ends ? cycles_ : Cycles{};
  state.buffer_holds = holds_.at<bool>();
  state.average_holds = holds_.at<bool>(holds_.size() / 2);
  if (state_table_.size() == 0) {
    state_table_ = DeviceMemory(device_, sizeof(DeviceState));
    driver.check(driver.memset_d8_async(state_table_.address(), 0, sizeof(DeviceState), static_cast<CUstream>(stream)),
                 "cuMemsetD8Async");
  }
  if (state.settings == state_.settings && state.group_count == state_.group_count &&
      state.progress == state_.progress && state.buffer_holds == state_.buffer_holds &&
      state.average_holds == state_.average_holds && state.generation == state_.generation &&
      state.cycles.spans == state_.cycles.spans && state.cycles.count == state_.cycles.count) {
    return;
  }
  copy(stream, state_table_.address(), &state, offsetof(DeviceState, counts));
  state_ = state;
}

// Finds places for slots, chunks and scratch in the memory of `work`.
void Plan::lay_out(Work& work, const std::vector<Slot>& slots) {
  cut_into_chunks(slots, chunks_);
  const std::size_t chunk_count = chunks_.by_number.size();
  const std::size_t parts_at = slots.size() * sizeof(Slot);
  const std::size_t first_at = parts_at + 2 * chunk_count * sizeof(NormPart);
  const std::size_t lengths_at = first_at + slots.size() * sizeof(std::uint64_t);
  const std::size_t ended_at = lengths_at + slots.size() * sizeof(SlotLengths);
  const std::size_t chunks_at = ended_at + slots.size() * sizeof(std::uint32_t);
  grow(work.memory, chunks_at + 2 * chunk_count * sizeof(DeviceChunk));
  work.device.slots = work.memory.at<const Slot>();
  work.device.chunks = work.memory.at<const DeviceChunk>(chunks_at);
  work.device.by_size = work.device.chunks + chunk_count;
  work.device.slot_count = static_cast<std::uint32_t>(slots.size());
  work.device.chunk_count = static_cast<std::uint32_t>(chunk_count);
  work.device.shared_count = chunks_.shared_count;
  work.device.parts = work.memory.at<NormPart>(parts_at);
  work.device.first_chunks = work.memory.at<const std::uint64_t>(first_at);
  work.device.lengths = work.memory.at<SlotLengths>(lengths_at);
  work.device.ended = work.memory.at<std::uint32_t>(ended_at);
}

void Plan::copy_work(void* stream, Work& work, const std::vector<Slot>& slots) {
  const bool other_chunks = work.memory.size() == 0 || !all_of_one_size(slots, work.slots);
  work.slots.clear();  // until all is copied
  if (other_chunks) {
    lay_out(work, slots);
    const auto put = [&](const auto* at, const auto& table) {
      copy(stream, reinterpret_cast<CUdeviceptr>(at), table.data(), table.size() * sizeof(table[0]));
    };
    put(work.device.chunks, chunks_.by_number);
    put(work.device.by_size, chunks_.by_size);
    put(work.device.first_chunks, chunks_.first);
    const Driver& driver = Driver::get();
    const Device::Current current(device_);
    driver.check(driver.memset_d8_async(reinterpret_cast<CUdeviceptr>(work.device.ended), 0,
                                        slots.size() * sizeof(std::uint32_t), static_cast<CUstream>(stream)),
                 "cuMemsetD8Async");
  }
  copy(stream, work.memory.address(), slots.data(), slots.size() * sizeof(Slot));
  const bool alike = !slots.empty() && std::all_of(slots.begin(), slots.end(),
                                                   [&](const Slot& slot) { return slot.dtype == slots.front().dtype; });
  work.one_dtype = alike ? std::optional<DType>(slots.front().dtype) : std::nullopt;
  work.device.number = ++works_;
  work.slots = slots;
}

void Plan::copy_shared(void* stream, Work& work, const SharedNumbers& shared) {
  work.device.numbers = shared.numbers;
  if (shared.numbers == nullptr) return;
  work.device.number_count = static_cast<std::uint32_t>(shared.count);
  if (all_same(shared.slots, work.places) && shared.sums == work.sums) return;
  work.places.clear();  // until all is copied
  work.sums.clear();
  const std::size_t bytes = shared.slots.size() * sizeof(SharedPlaces);
  grow(work.shared_memory, bytes + shared.sums.size() * sizeof(std::uint32_t));
  copy(stream, work.shared_memory.address(), shared.slots.data(), bytes);
  copy(stream, work.shared_memory.address() + bytes, shared.sums.data(), shared.sums.size() * sizeof(std::uint32_t));
  work.device.places = work.shared_memory.at<const SharedPlaces>();
  work.device.sums = work.shared_memory.at<const std::uint32_t>(bytes);
  work.device.sum_count = static_cast<std::uint32_t>(shared.sums.size());
  work.places = shared.slots;
  work.sums = shared.sums;
}

void Plan::set_work(void* stream, const std::vector<Slot>& slots, const SharedNumbers& shared, bool in_order) {
  copy_state(stream);
  work_ = &eager_;
  work_->in_order = in_order;
  if (work_->memory.size() == 0 || !all_same(slots, work_->slots)) copy_work(stream, *work_, slots);
  copy_shared(stream, *work_, shared);
}

void Plan::set_captured_work(const std::vector<Slot>& slots, const SharedNumbers& shared, bool in_order) {
  const Device::Current current(device_);
  const BesideCapture beside;
  captured_.emplace_back();
  work_ = &captured_.back();
  work_->in_order = in_order;
  copy_work(beside_.get(), *work_, slots);
  copy_shared(beside_.get(), *work_, shared);
  wait_for_own_stream();
}

void Plan::wait_for_own_stream() {
  const Driver& driver = Driver::get();
  CUresult result = CUDA_SUCCESS;
  wait_([&] { result = driver.stream_synchronize(beside_.get()); });
  driver.check(result, "cuStreamSynchronize");
}

void Plan::launch(CUfunction kernel, std::uint64_t blocks, int threads, void* stream, const DeviceWork& work,
                  const DeviceStep& step) {
  const Driver& driver = Driver::get();
  const Device::Current current(device_);
  CUdeviceptr state = state_table_.address();
  DeviceWork done = work;
  DeviceStep told = step;
  void* arguments[] = {&state, &done, &told};
  driver.check(driver.launch_kernel(kernel, static_cast<unsigned>(blocks), 1, 1, static_cast<unsigned>(threads), 1, 1,
                                    0, static_cast<CUstream>(stream), arguments, nullptr),
               "cuLaunchKernel");
}

void Plan::measure(void* stream, const DeviceStep& step) {
  const std::uint64_t units = norm_units(work_->device), resident = kNormBlocks * device_.multiprocessors();
  launch(device_.kernels().norm, std::clamp<std::uint64_t>(units, 1, resident), kNormThreads, stream, work_->device,
         step);
}

void Plan::share(void* stream, const DeviceStep& step) {
  launch(device_.kernels().share, 1, kNormThreads, stream, work_->device, step);
}

// True if this step is a plain update of tensors of one dtype. The launch asks nothing more of the device.
bool Plan::is_plain(const DeviceStep& step) const {
  return work_->one_dtype && step.grad_scale == nullptr && step.max_norm == 0.0 && !step.trusts &&
         std::all_of(work_->slots.begin(), work_->slots.end(),
                     [&](const Slot& slot) { return slot.size == 0 || is_bare_update(step.gradients, slot); });
}

// There are as many blocks as multiprocessors hold at once. One alone draws its work in order, chunk by chunk.
void Plan::step(void* stream, const DeviceStep& step) {
  const bool plain = is_plain(step);
  DeviceWork work = work_->device;
  if (work_->in_order) {
    work.by_size = work.chunks;
    work.shared_count = work.chunk_count;
  }
  const int threads = plain ? kPlainThreads : kStepThreads;
  const unsigned resident = work_->in_order ? 1 : (plain ? kPlainBlocks : kStepBlocks) * device_.multiprocessors();
  const std::uint32_t units = update_units(work, static_cast<std::uint32_t>(threads / kWarp));
  launch(plain ? device_.kernels().plain[static_cast<int>(*work_->one_dtype)] : device_.kernels().step,
         std::clamp<std::uint64_t>(units, 1, resident), threads, stream, work, step);
  if (work_ == &eager_) stepped_.record(static_cast<CUstream>(stream));
}

DeviceProgress Plan::read(void* stream) {
  const Driver& driver = Driver::get();
  const Device::Current current(device_);
  if (state_table_.size() == 0) return {};
  const std::size_t groups = 2 * groups_ * sizeof(GroupProgress);
  const std::size_t bytes = sizeof(DeviceState) + groups + holds_.size();
  if (answer_.size() < bytes) answer_ = PinnedMemory(device_, bytes);
  const BesideCapture beside;
  read_behind_.record(static_cast<CUstream>(stream));
  read_behind_.hold_up(beside_.get());
  stepped_.hold_up(beside_.get());
  const auto fetch = [&](std::size_t at, const DeviceMemory& from, std::size_t count) {
    if (count == 0) return;
    driver.check(driver.memcpy_dtoh_async(answer_.at<void>(at), from.address(), count, beside_.get()),
                 "cuMemcpyDtoHAsync");
  };
  fetch(0, state_table_, sizeof(DeviceState));
  fetch(sizeof(DeviceState), progress_, groups);
  fetch(sizeof(DeviceState) + groups, holds_, holds_.size());
  wait_for_own_stream();
  const DeviceState& state = *answer_.at<DeviceState>();
  const auto* const progress = answer_.at<GroupProgress>(sizeof(DeviceState)) + (state.turn == 0 ? 0 : groups_);
  const auto* const buffers = answer_.at<char>(sizeof(DeviceState) + groups);
  const auto* const averages = buffers + holds_.size() / 2;
  return {{progress, progress + groups_},
          {buffers, buffers + parameters_},
          {averages, averages + parameters_},
          state.counts,
          state.norm,
          state.clip_coefficient,
          state.refused};
}

DeviceReport Plan::reported() const {
  const volatile DeviceReport* const report = report_.at<DeviceReport>();
  return {report->applied, report->skipped, report->refused, report->stale, report->last_skipped};
}

}  // namespace

bool is_captured(int ordinal, void* stream) {
  const Driver& driver = Driver::get();
  const Device::Current current(Device::at(ordinal));
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  const CUresult result = driver.stream_is_capturing(static_cast<CUstream>(stream), &status);
  // Another stream is captured, which the null stream would wait for: a launch will say so if that matters.
  if (result == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT) return false;
  driver.check(result, "cuStreamIsCapturing");
  return status != CU_STREAM_CAPTURE_STATUS_NONE;
}

std::unique_ptr<DevicePlan> make_device_plan(int ordinal, Wait wait) { return std::make_unique<Plan>(ordinal, wait); }

}  // namespace clr
