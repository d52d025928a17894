#include "cuda/device_plan.h"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <map>
#include <utility>

#include "cuda/device_work.h"

namespace clr {

namespace {

// Compares the bytes: a new setting needs no line here, and there is no padding.
bool same(const GroupSettings& a, const GroupSettings& b) {
  const auto* const bytes = reinterpret_cast<const unsigned char*>(&a);
  return std::equal(bytes, bytes + sizeof(GroupSettings), reinterpret_cast<const unsigned char*>(&b));
}

bool all_same(const std::vector<GroupSettings>& a, const std::vector<GroupSettings>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const GroupSettings& x, const GroupSettings& y) { return same(x, y); });
}

CUstream as_stream(void* stream) { return static_cast<CUstream>(stream); }

class Plan final : public DevicePlan {
 public:
  Plan(int ordinal, const Host& host);
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() override;

  void set_groups(void* stream, const std::vector<GroupSettings>& settings, const Cycles& cycles,
                  const std::vector<TabulatedScales>& scales, bool other_schedules, std::uint64_t generation) override;
  bool has_groups(const std::vector<GroupSettings>& settings) const override { return all_same(settings, settings_); }
  void set_progress(void* stream, const std::vector<GroupProgress>& progress) override;
  void set_parameters(void* stream, std::size_t count) override;
  void set_state(void* stream, const std::vector<StateChange>& changes) override;
  void set_work(void* stream, const std::vector<Slot>& slots, const SharedNumbers& shared, bool in_order) override;
  void set_captured_work(const std::vector<Slot>& slots, const SharedNumbers& shared, bool in_order) override;
  bool has_work(const std::vector<Slot>& slots) const override { return work_->has(slots); }
  void measure(void* stream, const DeviceStep& step) override;
  void share(void* stream, const DeviceStep& step) override;
  void step(void* stream, const DeviceStep& step) override;
  void release(void* stream, const Slot& slot, const DeviceStep& step) override;
  void wait_for_releases(void* stream) override;
  void mark(void* stream) override { stepped_.record(as_stream(stream)); }
  DeviceProgress read(void* stream) override;
  DeviceReport reported() const override;

 private:
  void copy_pieces(void* stream, const std::vector<GroupSettings>& settings,
                   const std::vector<TabulatedScales>& scales);
  std::map<const Piece*, ScaleTable> copy_scales(void* stream, const std::vector<TabulatedScales>& scales);
  void copy_settings(void* stream, const std::vector<GroupSettings>& settings, std::size_t first, std::size_t last);
  void copy_state(void* stream);
  void forget_marks(void* stream);
  void clear_in_state(void* stream, std::size_t at, std::size_t bytes);
  void launch(CUfunction kernel, std::uint64_t blocks, int threads, void* stream, void** arguments);
  void launch(CUfunction kernel, std::uint64_t blocks, int threads, void* stream, const DeviceWork& work,
              const DeviceStep& step);

  const Device& device_;
  DeviceTables tables_;
  Event stepped_;   // behind the last step that was not captured, or the last replay that was noted
  Event released_;  // behind the last release
  void* released_in_ = nullptr;
  bool is_releasing_ = false;  // True if parameters have been released, in that stream, since the last step
  Event read_behind_;          // behind what the reader's stream had to do
  DeviceMemory pieces_, scales_, spans_, settings_table_, progress_, holds_, state_table_;
  PinnedMemory report_, answer_;
  DeviceState state_{};                         // the host's part of it, as last copied
  std::vector<GroupSettings> settings_;         // as last set
  std::map<const Piece*, std::size_t> places_;  // where the host's pieces lie in pieces_
  std::size_t parameters_ = 0, groups_ = 0;
  std::uint64_t generation_ = 0;  // of the groups
  Cycles cycles_ = {};            // of the first of them, in the device's memory
  WorkTable eager_;
  std::deque<WorkTable> captured_;
  std::uint32_t works_ = 0;    // tables of slots that were copied so far
  WorkTable* work_ = &eager_;  // of the next launches
};

Plan::Plan(int ordinal, const Host& host)
    : device_(Device::at(ordinal)),
      tables_(device_, host),
      stepped_(device_),
      released_(device_),
      read_behind_(device_) {
  device_.kernels();
  report_ = PinnedMemory(device_, sizeof(DeviceReport));
  *report_.at<DeviceReport>() = {};
  state_.report = report_.at<DeviceReport>();
}

Plan::~Plan() {
  tables_.finish(released_);
  tables_.finish(stepped_);
}

// Copies each schedule once, however many groups follow it.
void Plan::copy_pieces(void* stream, const std::vector<GroupSettings>& settings,
                       const std::vector<TabulatedScales>& scales) {
  const std::map<const Piece*, ScaleTable> tables = copy_scales(stream, scales);
  std::vector<Piece> all;
  places_.clear();
  for (const GroupSettings& group : settings) {
    if (!places_.emplace(group.pieces, all.size()).second) continue;
    for (const Piece* piece = group.pieces; piece != group.pieces + group.piece_count; ++piece) {
      all.push_back(*piece);
      const auto table = tables.find(piece);
      if (table != tables.end()) all.back().table = table->second;
    }
  }
  tables_.grow(pieces_, all.size() * sizeof(Piece));
  tables_.copy(as_stream(stream), pieces_.address(), all.data(), all.size() * sizeof(Piece));
}

// Returns the tables as they lie on the device.
std::map<const Piece*, ScaleTable> Plan::copy_scales(void* stream, const std::vector<TabulatedScales>& scales) {
  std::vector<double> all;
  for (const TabulatedScales& table : scales) all.insert(all.end(), table.scales.begin(), table.scales.end());
  tables_.grow(scales_, all.size() * sizeof(double));
  tables_.copy(as_stream(stream), scales_.address(), all.data(), all.size() * sizeof(double));
  std::map<const Piece*, ScaleTable> there;
  std::size_t at = 0;
  for (const TabulatedScales& table : scales) {
    there[table.piece] = {scales_.at<const double>(at * sizeof(double)), table.first, table.scales.size()};
    at += table.scales.size();
  }
  return there;
}

void Plan::set_groups(void* stream, const std::vector<GroupSettings>& settings, const Cycles& cycles,
                      const std::vector<TabulatedScales>& scales, bool other_schedules, std::uint64_t generation) {
  generation_ = generation;
  std::size_t first = 0, last = settings.size();
  if (other_schedules || settings.size() != settings_.size()) {
    copy_pieces(stream, settings, scales);
    tables_.grow(spans_, cycles.count * sizeof(CycleSpan));
    tables_.copy(as_stream(stream), spans_.address(), cycles.spans, cycles.count * sizeof(CycleSpan));
    cycles_ = {spans_.at<const CycleSpan>(), cycles.count};
    tables_.grow(settings_table_, settings.size() * sizeof(GroupSettings));
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
  tables_.copy(as_stream(stream), settings_table_.address() + first * sizeof(GroupSettings), rows.data(),
               rows.size() * sizeof(GroupSettings));
}

void Plan::set_progress(void* stream, const std::vector<GroupProgress>& progress) {
  std::vector<GroupProgress> both = progress;  // the host does not know which one will be in force
  both.insert(both.end(), progress.begin(), progress.end());
  tables_.grow(progress_, both.size() * sizeof(GroupProgress));
  groups_ = 0;  // until all is copied
  tables_.copy(as_stream(stream), progress_.address(), both.data(), both.size() * sizeof(GroupProgress));
  groups_ = progress.size();
  clear_in_state(stream, offsetof(DeviceState, unusable), 2 * sizeof(DeviceState::unusable));
}

void Plan::set_parameters(void* stream, std::size_t count) {
  tables_.grow(holds_, 3 * count);
  parameters_ = count;
  tables_.clear(as_stream(stream), holds_.address(), holds_.size());
  forget_marks(stream);
}

// Makes the device mark again which buffers and averages hold numbers.
void Plan::forget_marks(void* stream) {
  clear_in_state(stream, offsetof(DeviceState, marked), sizeof(DeviceState::marked));
}

void Plan::clear_in_state(void* stream, std::size_t at, std::size_t bytes) {
  if (state_table_.size() != 0) tables_.clear(as_stream(stream), state_table_.address() + at, bytes);
}

// Copies neighbouring flags together.
void Plan::set_state(void* stream, const std::vector<StateChange>& changes) {
  if (!changes.empty()) forget_marks(stream);
  std::map<std::size_t, char> bytes;
  for (const StateChange& change : changes) {
    bytes[change.position + (change.is_average ? holds_.size() / 3 : 0)] = change.holds ? 1 : 0;
  }
  std::vector<char> run;
  for (auto byte = bytes.begin(); byte != bytes.end();) {
    const std::size_t first = byte->first;
    run.clear();
    for (; byte != bytes.end() && byte->first == first + run.size(); ++byte) run.push_back(byte->second);
    tables_.copy(as_stream(stream), holds_.address() + first, run.data(), run.size());
  }
}

// Copies the host's part of the device's state if it has changed.
void Plan::copy_state(void* stream) {
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
  state.average_holds = holds_.at<bool>(holds_.size() / 3);
  state.released = holds_.at<std::uint8_t>(holds_.size() / 3 * 2);
  state.parameter_count = parameters_;
  if (state_table_.size() == 0) {
    DeviceMemory fresh;
    tables_.grow(fresh, sizeof(DeviceState));
    tables_.clear(as_stream(stream), fresh.address(), sizeof(DeviceState));
    state_table_ = std::move(fresh);
  }
  if (state.settings == state_.settings && state.group_count == state_.group_count &&
      state.progress == state_.progress && state.buffer_holds == state_.buffer_holds &&
      state.average_holds == state_.average_holds && state.parameter_count == state_.parameter_count &&
      state.generation == state_.generation && state.cycles.spans == state_.cycles.spans &&
      state.cycles.count == state_.cycles.count) {
    return;
  }
  tables_.copy(as_stream(stream), state_table_.address(), &state, offsetof(DeviceState, counts));
  state_ = state;
}

void Plan::set_work(void* stream, const std::vector<Slot>& slots, const SharedNumbers& shared, bool in_order) {
  copy_state(stream);
  work_ = &eager_;
  work_->set(tables_, as_stream(stream), slots, shared, in_order, works_);
}

void Plan::set_captured_work(const std::vector<Slot>& slots, const SharedNumbers& shared, bool in_order) {
  const Device::Current current(device_);
  const BesideCapture beside;
  captured_.emplace_back();
  work_ = &captured_.back();
  work_->set(tables_, tables_.beside(), slots, shared, in_order, works_);
  tables_.wait_for_beside();
}

void Plan::launch(CUfunction kernel, std::uint64_t blocks, int threads, void* stream, void** arguments) {
  const Driver& driver = Driver::get();
  const Device::Current current(device_);
  driver.check(driver.launch_kernel(kernel, static_cast<unsigned>(blocks), 1, 1, static_cast<unsigned>(threads), 1, 1,
                                    0, as_stream(stream), arguments, nullptr),
               "cuLaunchKernel");
}

void Plan::launch(CUfunction kernel, std::uint64_t blocks, int threads, void* stream, const DeviceWork& work,
                  const DeviceStep& step) {
  CUdeviceptr state = state_table_.address();
  DeviceWork done = work;
  DeviceStep told = step;
  void* arguments[] = {&state, &done, &told};
  launch(kernel, blocks, threads, stream, arguments);
}

void Plan::release(void* stream, const Slot& slot, const DeviceStep& step) {
  copy_state(stream);
  CUdeviceptr state = state_table_.address();
  Slot updated = slot;
  DeviceStep told = step;
  void* arguments[] = {&state, &updated, &told};
  const std::int64_t chunks = (slot.size + kDeviceChunk - 1) / kDeviceChunk,
                     resident = kReleaseBlocks * device_.multiprocessors();
  launch(device_.kernels().release, static_cast<std::uint64_t>(std::clamp<std::int64_t>(chunks, 1, resident)),
         kStepThreads, stream, arguments);
  released_.record(as_stream(stream));
  released_in_ = stream;
  is_releasing_ = true;
}

void Plan::wait_for_releases(void* stream) {
  if (is_releasing_ && released_in_ != stream) released_.hold_up(as_stream(stream));
}

void Plan::measure(void* stream, const DeviceStep& step) {
  const std::uint64_t units = norm_units(work_->measured()), resident = kNormBlocks * device_.multiprocessors();
  launch(device_.kernels().norm, std::clamp<std::uint64_t>(units, 1, resident), kNormThreads, stream, work_->measured(),
         step);
}

void Plan::share(void* stream, const DeviceStep& step) {
  launch(device_.kernels().share, 1, kNormThreads, stream, work_->measured(), step);
}

// There are as many blocks as multiprocessors hold at once.
void Plan::step(void* stream, const DeviceStep& step) {
  const std::optional<DType> plain = work_->plain_dtype(step);
  const DeviceWork work = work_->updated();
  const int threads = plain ? kPlainThreads : kStepThreads;
  const unsigned resident = work_->in_order() ? 1 : (plain ? kPlainBlocks : kStepBlocks) * device_.multiprocessors();
  const std::uint32_t units = update_units(work, static_cast<std::uint32_t>(threads / kWarp));
  launch(plain ? device_.kernels().plain[static_cast<int>(*plain)] : device_.kernels().step,
         std::clamp<std::uint64_t>(units, 1, resident), threads, stream, work, step);
  is_releasing_ = false;
  if (work_ == &eager_) mark(stream);
}

DeviceProgress Plan::read(void* stream) {
  const Driver& driver = Driver::get();
  const Device::Current current(device_);
  if (state_table_.size() == 0) return {};
  const std::size_t groups = 2 * groups_ * sizeof(GroupProgress);
  const std::size_t bytes = sizeof(DeviceState) + groups + holds_.size();
  if (answer_.size() < bytes) answer_ = PinnedMemory(device_, bytes);
  const BesideCapture beside;
  read_behind_.record(as_stream(stream));
  read_behind_.hold_up(tables_.beside());
  stepped_.hold_up(tables_.beside());
  const auto fetch = [&](std::size_t at, const DeviceMemory& from, std::size_t count) {
    if (count == 0) return;
    driver.check(driver.memcpy_dtoh_async(answer_.at<void>(at), from.address(), count, tables_.beside()),
                 "cuMemcpyDtoHAsync");
  };
  fetch(0, state_table_, sizeof(DeviceState));
  fetch(sizeof(DeviceState), progress_, groups);
  fetch(sizeof(DeviceState) + groups, holds_, holds_.size());
  tables_.wait_for_beside();
  const DeviceState& state = *answer_.at<DeviceState>();
  const auto* const progress = answer_.at<GroupProgress>(sizeof(DeviceState)) + (state.turn == 0 ? 0 : groups_);
  const auto* const buffers = answer_.at<char>(sizeof(DeviceState) + groups);
  const auto* const averages = buffers + holds_.size() / 3;
  return {{progress, progress + groups_},
          {buffers, buffers + parameters_},
          {averages, averages + parameters_},
          state.counts,
          state.norm,
          state.clip_coefficient,
          state.refused,
          state.unusable != 0};
}

DeviceReport Plan::reported() const {
  const volatile DeviceReport* const report = report_.at<DeviceReport>();
  return {report->applied, report->skipped, report->refused, report->stale, report->unusable, report->last_skipped};
}

}  // namespace

bool is_captured(int ordinal, void* stream) {
  const Driver& driver = Driver::get();
  const Device::Current current(Device::at(ordinal));
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  const CUresult result = driver.stream_is_capturing(as_stream(stream), &status);
  // Another stream is captured, which the null stream would wait for: a launch will say so if that matters.
  if (result == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT) return false;
  driver.check(result, "cuStreamIsCapturing");
  return status != CU_STREAM_CAPTURE_STATUS_NONE;
}

std::unique_ptr<DevicePlan> make_device_plan(int ordinal, const Host& host) {
  return std::make_unique<Plan>(ordinal, host);
}

}  // namespace clr
