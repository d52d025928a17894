#include "python/optimizer/device_steps.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "python/torch/tensor_view.h"

namespace clr {

namespace {

std::vector<std::uint64_t> origins_of(const Groups& groups) {
  std::vector<std::uint64_t> origins;
  for (const auto& group : groups) origins.push_back(group->position_version());
  return origins;
}

[[noreturn]] void refuse_in_graph(const std::string& what) {
  throw std::runtime_error(what + " cannot be captured in a CUDA graph: call step() once before you capture it");
}

}  // namespace

bool DeviceSteps::are_on_several(const std::vector<int>& devices) const {
  const int one = plans_.empty() ? devices.empty() ? -1 : devices.front() : plans_.begin()->first;
  return plans_.size() > 1 || std::any_of(devices.begin(), devices.end(), [one](int device) { return device != one; });
}

bool DeviceSteps::is_captured() const {
  return std::any_of(plans_.begin(), plans_.end(), [](const auto& device) {
    return clr::is_captured(device.first, TorchReader::get().current_stream(device.first));
  });
}

void DeviceSteps::require_readable() const {
  if (!is_captured()) return;
  throw std::runtime_error(
      "what a device has counted cannot be read while its stream is captured in a CUDA graph: read it before or after");
}

bool DeviceSteps::is_behind(const Groups& groups) const {
  if (plans_.empty()) return false;
  const DeviceReport report = plans_.begin()->second.plan->reported();
  if (report.skipped != seen_skipped_ || report.applied + report.skipped > launched_) return true;
  return (runs_ahead_ || has_graphs_) && origins_of(groups) != origins_;
}

// Settings and progress of all groups, as the host has them.
void DeviceSteps::set_groups(const Groups& groups) {
  std::vector<std::uint64_t> ids, origins = origins_of(groups);
  for (const auto& group : groups) ids.push_back(group->binding_id());
  other_groups_ = ids != ids_;
  other_origins_ = other_groups_ || origins != origins_;
  new_ids_ = std::move(ids);
  new_origins_ = std::move(origins);
  settings_.clear();
  progress_.clear();
  for (const auto& group : groups) {
    settings_.push_back(group->settings());
    progress_.push_back(group->progress());
  }
}

void DeviceSteps::forget_parameters() {
  parameters_known_ = false;
  changes_.clear();
  for (auto& [ordinal, device] : plans_) {
    device.told_of_buffer.clear();
    device.told_of_average.clear();
  }
}

void DeviceSteps::refuse_capture(bool new_state) const {
  if (plans_.size() > 1) throw std::runtime_error("a step over several devices cannot be captured in a CUDA graph");
  const OneDevice& device = plans_.begin()->second;
  if (!device.has_groups || !device.has_parameters || !parameters_known_) refuse_in_graph("the first step");
  if (new_state || !changes_.empty()) refuse_in_graph("a step that makes a buffer or an average");
  if (other_origins_) refuse_in_graph("a step after a change of position");
  if (!device.plan->has_groups(settings_))
    refuse_in_graph("a step with changed settings, or lr or momentum set by hand,");
}

// What this device does not know yet.
void DeviceSteps::tell(OneDevice& device, void* stream, std::size_t parameters) {
  if (!device.has_groups || other_origins_) {
    device.plan->set_progress(stream, progress_);
  }
  device.plan->set_groups(stream, settings_, !device.has_groups || other_groups_);
  device.has_groups = true;
  if (!device.has_parameters || !parameters_known_) {
    device.plan->set_parameters(stream, parameters);
    device.told_of_buffer.assign(parameters, 0);
    device.told_of_average.assign(parameters, 0);
    device.has_parameters = true;
  }
}

void DeviceSteps::prepare(const Groups& groups, std::size_t parameters, const std::vector<Slot>& slots,
                          const std::vector<int>& devices, bool new_state, bool captured) {
  const TorchReader& torch = TorchReader::get();
  set_groups(groups);
  for (const int ordinal : devices) {
    if (plans_.count(ordinal) != 0) continue;
    if (clr::is_captured(ordinal, torch.current_stream(ordinal))) refuse_in_graph("the first step");
    std::unique_ptr<DevicePlan> plan = make_device_plan(ordinal);
    plans_[ordinal].plan = std::move(plan);
  }
  if (captured) refuse_capture(new_state);
  const bool one = plans_.size() == 1;
  for (auto& [ordinal, device] : plans_) device.slots.clear();
  for (std::size_t i = 0; !one && i < slots.size(); ++i) plans_[devices[i]].slots.push_back(slots[i]);
  for (auto& [ordinal, device] : plans_) {
    if (captured) {
      device.plan->set_captured_work(slots);
      continue;
    }
    void* const stream = torch.current_stream(ordinal);
    tell(device, stream, parameters);
    std::vector<StateChange>& changes = changes_[ordinal];
    device.plan->set_state(stream, changes);
    for (const StateChange& change : changes) {
      (change.is_average ? device.told_of_average : device.told_of_buffer)[change.position] = 1;
    }
    changes_.erase(ordinal);
    device.plan->set_work(stream, one ? slots : device.slots);
  }
  parameters_known_ = true;
  ids_ = new_ids_;
  origins_ = new_origins_;
}

void DeviceSteps::measure(const DeviceStep& step) {
  for (auto& [ordinal, device] : plans_) device.plan->measure(TorchReader::get().current_stream(ordinal), step);
}

void DeviceSteps::step(const DeviceStep& step, bool captured) {
  for (auto& [ordinal, device] : plans_) device.plan->step(TorchReader::get().current_stream(ordinal), step);
  has_graphs_ = has_graphs_ || captured;
  if (captured) return;
  runs_ahead_ = true;
  ++launched_;
}

// Where a binding stands among those that the devices know, or behind all.
std::size_t DeviceSteps::row_of(std::uint64_t origin, std::size_t guess) const {
  if (guess < origins_.size() && origins_[guess] == origin) return guess;
  return static_cast<std::size_t>(std::find(origins_.begin(), origins_.end(), origin) - origins_.begin());
}

DeviceSteps::Empty DeviceSteps::synchronise(const Groups& groups) {
  Empty empty;
  if (!runs_ahead_ && !has_graphs_) return empty;  // nothing has been launched since
  require_readable();
  for (auto& [ordinal, device] : plans_) {
    if (!device.has_groups) continue;
    const DeviceProgress progress = device.plan->read(TorchReader::get().current_stream(ordinal));
    for (std::size_t i = 0; i < std::min(device.told_of_buffer.size(), progress.buffer_holds.size()); ++i) {
      if (device.told_of_buffer[i] != 0 && progress.buffer_holds[i] == 0) empty.buffers.push_back(i);
      if (device.told_of_average[i] != 0 && progress.average_holds[i] == 0) empty.averages.push_back(i);
    }
    if (ordinal != plans_.begin()->first) continue;
    seen_skipped_ = progress.counts.skipped;
    launched_ = progress.counts.applied + progress.counts.skipped;
    std::size_t guess = 0;
    for (const auto& group : groups) {
      const std::size_t row = group == nullptr ? origins_.size() : row_of(group->position_version(), guess++);
      if (row >= std::min(progress.groups.size(), settings_.size())) continue;  // moved since, or new, or not told
      const GroupProgress& counted = progress.groups[row];
      const Value pending = {settings_[row].lr_override, settings_[row].momentum_override};
      group->take(counted, clr::is_overridden(settings_[row], counted) ? &pending : nullptr);
    }
  }
  runs_ahead_ = false;
  return empty;
}

DeviceProgress DeviceSteps::last_step() const {
  require_readable();
  const auto& [ordinal, device] = *plans_.begin();
  return device.plan->read(TorchReader::get().current_stream(ordinal));
}

}  // namespace clr
