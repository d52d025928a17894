#include "cuda/device_steps.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace clr {

namespace {

[[noreturn]] void refuse_step(const std::string& message) { throw std::runtime_error(message); }

[[noreturn]] void refuse_in_graph(const std::string& what) {
  refuse_step(what + " cannot be captured in a CUDA graph: call step() once before you capture it");
}

DeviceStep device_step(const StepPlan& plan, const GradientOptions& options, const StepRequest& request) {
  DeviceStep step{};
  step.gradients = plan.gradients;
  step.grad_scale = request.grad_scale.at;
  step.found_inf = request.device_found_inf.at;
  step.report_inf = request.report_inf.at;
  step.max_norm = options.max_norm;
  step.trusts = plan.trusts;
  step.skips_nonfinite = looks_for_infinity(options, request);
  step.measured = measures_gradients(plan, options, request);
  step.skipped = request.found_inf.value_or(false);
  step.advances_on_skip = options.advance_on_skip;
  return step;
}

}  // namespace

std::unique_lock<std::recursive_mutex> DeviceSteps::alone() const {
  std::unique_lock<std::recursive_mutex> lock(in_use_, std::try_to_lock);
  if (!lock) host_.wait([&] { lock.lock(); });
  return lock;
}

bool DeviceSteps::are_on_several(const StepPlan& plan) const {
  const int one = !plans_.empty() ? plans_.begin()->first : plan.slots.empty() ? -1 : plan.slots.front().device;
  return plans_.size() > 1 ||
         std::any_of(plan.slots.begin(), plan.slots.end(), [one](const Slot& slot) { return slot.device != one; });
}

bool DeviceSteps::is_captured() const {
  return std::any_of(plans_.begin(), plans_.end(), [this](const auto& device) {
    return clr::is_captured(device.first, host_.current_stream(device.first));
  });
}

bool DeviceSteps::notice_capture() {
  captured_ = is_captured();
  return captured_;
}

void DeviceSteps::require_readable() const {
  if (!is_captured()) return;
  refuse_step(
      "what a device has counted cannot be read while its stream is captured in a CUDA graph: read it before or after");
}

bool DeviceSteps::is_behind(const std::vector<std::uint64_t>& position_versions) const {
  if (plans_.empty()) return false;
  const DeviceReport report = plans_.begin()->second.plan->reported();
  if (report.skipped != seen_skipped_ || report.refused != seen_refused_ || report.stale != seen_stale_ ||
      report.unusable != seen_unusable_) {
    return true;
  }
  if (report.applied + report.skipped > launched_) return true;
  return may_run_ahead() && position_versions != position_versions_;
}

void DeviceSteps::note_replay() {
  const auto lock = alone();
  if (is_captured()) return;
  for (auto& [ordinal, device] : plans_) device.plan->mark(host_.current_stream(ordinal));
  runs_ahead_ = true;
}

void DeviceSteps::forget_parameters() {
  parameters_known_ = false;
  changes_.clear();
  for (auto& [ordinal, device] : plans_) {
    device.told_of_buffer.clear();
    device.told_of_average.clear();
  }
}

// Throws for a step that no device can run.
void DeviceSteps::refuse(const StepPlan& plan, const GradientOptions& options, const StepRequest& request) const {
  const bool adds_up_elsewhere = plan.shared.numbers != nullptr && plan.shared.device < 0;
  if (plan.device_slots == 0 && (!plan.slots.empty() || adds_up_elsewhere)) {
    refuse_step(
        "parameters have been moved from cuda to the cpu: make another optimizer for them, and load this one's "
        "state_dict() into it");
  }
  if (plan.device_slots != plan.slots.size()) {
    refuse_mixed_devices();
  }
  if (plan.in_order && !plan.copied.empty()) {
    refuse_step(
        "parameters that share memory cannot be updated on a CUDA device beside one whose memory has gaps: make that "
        "one dense with .contiguous(), or have one parameter where memory is shared");
  }
  const char* const global = options.max_norm != 0.0                                  ? "max_grad_norm"
                             : plan.shared.numbers != nullptr                         ? "adding up over processes"
                             : options.skip_nonfinite                                 ? "skip_nonfinite"
                             : !request.found_inf || request.grad_scale.at != nullptr ? "a GradScaler"
                                                                                      : nullptr;
  if (global != nullptr && are_on_several(plan)) {
    refuse_step(std::string(global) + " needs all gradients on one device: parameters lie on several");
  }
  for (const DeviceNumber& number : {request.grad_scale, request.device_found_inf, request.report_inf}) {
    if (number.at != nullptr && !plan.slots.empty() && number.device != plan.slots.front().device) {
      refuse_step("grad_scale and found_inf must lie on the device of the parameters, cuda:" +
                  std::to_string(plan.slots.front().device));
    }
  }
}

// Copies the settings and the progress of the groups. Finds out whether they are the groups that the devices know, at
// the positions that the devices know.
void DeviceSteps::take_groups(const std::vector<GroupRecord>& records) {
  settings_.clear();
  progress_.clear();
  new_group_ids_.clear();
  new_binding_ids_.clear();
  new_position_versions_.clear();
  for (const GroupRecord& record : records) {
    settings_.push_back(*record.settings);
    progress_.push_back(*record.progress);
    new_group_ids_.push_back(record.group_id);
    new_binding_ids_.push_back(record.binding_id);
    new_position_versions_.push_back(record.position_version);
  }
  other_groups_ = new_binding_ids_ != binding_ids_;
  other_positions_ = other_groups_ || lacks_values_ || new_position_versions_ != position_versions_;
}

void DeviceSteps::refuse_capture(bool makes_state) const {
  if (plans_.size() > 1) refuse_step("a step over several devices cannot be captured in a CUDA graph");
  const OneDevice& device = plans_.begin()->second;
  if (!device.has_groups || !device.has_parameters || !parameters_known_) refuse_in_graph("the first step");
  if (makes_state || !changes_.empty()) refuse_in_graph("a step that makes a buffer or an average");
  if (other_positions_) refuse_in_graph("a step after a change of position");
  if (!device.plan->has_groups(settings_)) {
    refuse_in_graph("a step with changed settings, or lr or momentum set by hand,");
  }
}

void DeviceSteps::add_device(int ordinal) {
  if (plans_.count(ordinal) != 0) return;
  if (clr::is_captured(ordinal, host_.current_stream(ordinal))) refuse_in_graph("the first step");
  std::unique_ptr<DevicePlan> plan = make_device_plan(ordinal, host_);
  plans_[ordinal].plan = std::move(plan);
}

// Copies to a device everything that it does not know yet.
void DeviceSteps::tell(int ordinal, OneDevice& device, const StepPlan& plan) {
  void* const stream = host_.current_stream(ordinal);
  if (!device.has_groups || other_positions_) device.plan->set_progress(stream, progress_);
  device.plan->set_groups(stream, settings_, plan.cycles, plan.scales,
                          !device.has_groups || other_groups_ || device.scales_version != plan.scales_version,
                          generation_);
  device.has_groups = true;
  device.scales_version = plan.scales_version;
  if (!device.has_parameters || !parameters_known_) {
    device.plan->set_parameters(stream, plan.parameter_count);
    device.told_of_buffer.assign(plan.parameter_count, 0);
    device.told_of_average.assign(plan.parameter_count, 0);
    device.has_parameters = true;
  }
  tell_changes(ordinal, device);
}

void DeviceSteps::tell_changes(int ordinal, OneDevice& device) {
  const std::vector<StateChange>& changes = changes_[ordinal];
  device.plan->set_state(host_.current_stream(ordinal), changes);
  for (const StateChange& change : changes) {
    (change.is_average ? device.told_of_average : device.told_of_buffer)[change.position] = 1;
  }
}

// Finds out what a step is for, and makes its work follow what has been released before.
void DeviceSteps::begin_step(const StepPlan& plan) {
  take_groups(plan.records);
  for (const Slot& slot : plan.slots) add_device(slot.device);
  if (plan.shared.numbers != nullptr) add_device(plan.shared.device);
  if (captured_) refuse_capture(plan.makes_state);
  if (group_ids_ != new_group_ids_) ++generation_;
  group_ids_ = new_group_ids_;
  step_.generation = generation_;
  step_.has_rates = std::any_of(settings_.begin(), settings_.end(),
                                [](const GroupSettings& settings) { return settings.rate != nullptr; });
  for (auto& [ordinal, device] : plans_) device.plan->wait_for_releases(host_.current_stream(ordinal));
}

// Copies to all devices that the optimizer has used what they do not know yet.
void DeviceSteps::tell_all(const StepPlan& plan) {
  if (captured_) return;
  for (auto& [ordinal, device] : plans_) tell(ordinal, device, plan);
  changes_.clear();  // not before all that can fail
  lacks_values_ = false;
  parameters_known_ = true;
  binding_ids_ = new_binding_ids_;
  position_versions_ = new_position_versions_;
}

// Prepares the tables of one step on all devices that the optimizer has used.
void DeviceSteps::prepare(const StepPlan& plan) {
  begin_step(plan);
  tell_all(plan);
  step_.ends_releases = has_releases_;
  const bool one = plans_.size() == 1;
  for (auto& [ordinal, device] : plans_) device.slots.clear();
  for (std::size_t i = 0; !one && i < plan.slots.size(); ++i) {
    plans_[plan.slots[i].device].slots.push_back(plan.slots[i]);
  }
  for (auto& [ordinal, device] : plans_) {
    if (captured_) {
      device.plan->set_captured_work(plan.slots, plan.shared, plan.in_order);
    } else {
      device.plan->set_work(host_.current_stream(ordinal), one ? plan.slots : device.slots, plan.shared, plan.in_order);
    }
  }
}

void DeviceSteps::prepare_release(const StepPlan& plan, bool begins) {
  const auto lock = alone();
  const int ordinal = plan.slots.front().device;
  captured_ = clr::is_captured(ordinal, host_.current_stream(ordinal));
  const bool is_known = plans_.count(ordinal) != 0;
  if (begins) step_ = {};
  step_.gradients = plan.gradients;
  begin_step(plan);
  if (begins || !is_known) return tell_all(plan);
  if (!captured_) tell_changes(ordinal, plans_[ordinal]);
  changes_.erase(ordinal);
}

void DeviceSteps::release(const StepPlan& plan) {
  const auto lock = alone();
  const Slot& slot = plan.slots.front();
  plans_[slot.device].plan->release(host_.current_stream(slot.device), slot, step_);
  has_releases_ = true;
}

void DeviceSteps::measure(const StepPlan& plan, const GradientOptions& options, const StepRequest& request) {
  const auto lock = alone();
  refuse(plan, options, request);
  step_ = device_step(plan, options, request);
  prepare(plan);
  if (step_.measured) {
    for (auto& [ordinal, device] : plans_) device.plan->measure(host_.current_stream(ordinal), step_);
  }
  measured_norm_ = step_.max_norm != 0.0 || step_.trusts;
  clips_ = step_.max_norm != 0.0;
}

Measured DeviceSteps::decide(StepPlan& plan, const GradientOptions& options, const StepRequest&) {
  const auto lock = alone();
  if (plan.shared.numbers != nullptr) share(plan);
  if (options.error_if_nonfinite && !step_.skipped) {
    if (captured_) {
      refuse_step("error_if_nonfinite=True has to wait for the norm, and cannot be captured in a CUDA graph");
    }
    const DeviceProgress measured = read_first();
    if (measured.refused) refuse_for_another();
    if (!std::isfinite(measured.norm)) refuse_norm(measured.norm);
  }
  return {false, captured_};
}

// Goes on when the processes have added up their numbers. The owner has read all tensors again.
void DeviceSteps::share(const StepPlan& plan) {
  auto& [ordinal, device] = *plans_.begin();
  if (!captured_) {
    tell_changes(ordinal, device);
    changes_.clear();
    device.plan->set_work(host_.current_stream(ordinal), plan.slots, plan.shared, plan.in_order);
  } else if (!device.plan->has_work(plan.slots)) {
    refuse_in_graph("a step whose tensors have gaps, or move while it adds up over processes,");
  }
  device.plan->share(host_.current_stream(ordinal), step_);
}

void DeviceSteps::run(const StepPlan&) {
  const auto lock = alone();
  for (auto& [ordinal, device] : plans_) device.plan->step(host_.current_stream(ordinal), step_);
  has_graphs_ = has_graphs_ || captured_;
  has_releases_ = false;
  if (captured_) return;
  runs_ahead_ = true;
  ++launched_;
}

// Returns a group's row among the groups that the devices know, or the number of rows if they do not know it.
std::size_t DeviceSteps::row_of(std::uint64_t position_version, std::size_t guess) const {
  const std::vector<std::uint64_t>& known = position_versions_;
  if (guess < known.size() && known[guess] == position_version) return guess;
  return static_cast<std::size_t>(std::find(known.begin(), known.end(), position_version) - known.begin());
}

DeviceSteps::Counted DeviceSteps::synchronise(const std::vector<std::uint64_t>& position_versions) {
  const auto lock = alone();
  Counted counted;
  counted.groups.resize(position_versions.size());
  if (!may_run_ahead()) return counted;  // nothing has been launched since
  require_readable();
  for (auto& [ordinal, device] : plans_) {
    if (!device.has_groups) continue;
    const DeviceProgress progress = device.plan->read(host_.current_stream(ordinal));
    const bool may_fill = has_graphs_ || has_releases_;  // the next step marks what releases have filled
    const std::size_t told = may_fill ? 0 : std::min(device.told_of_buffer.size(), progress.buffer_holds.size());
    for (std::size_t i = 0; i < told; ++i) {
      if (device.told_of_buffer[i] != 0 && progress.buffer_holds[i] == 0) counted.empty_buffers.push_back(i);
      if (device.told_of_average[i] != 0 && progress.average_holds[i] == 0) counted.empty_averages.push_back(i);
    }
    if (ordinal != plans_.begin()->first) continue;
    seen_skipped_ = progress.counts.skipped;
    counted.last_skipped = progress.counts.last_skipped;
    counted.refused = progress.counts.refused != seen_refused_;
    seen_refused_ = progress.counts.refused;
    counted.stale = progress.counts.stale != seen_stale_;
    seen_stale_ = progress.counts.stale;
    counted.unusable = progress.counts.unusable != seen_unusable_;
    seen_unusable_ = progress.counts.unusable;
    lacks_values_ = progress.unusable;
    counted.has_applied = progress.counts.applied != 0;
    launched_ = progress.counts.applied + progress.counts.skipped;
    for (std::size_t g = 0; g < position_versions.size(); ++g) {
      const std::size_t row = row_of(position_versions[g], g);
      if (row >= std::min(progress.groups.size(), settings_.size())) continue;
      counted.groups[g] = Counted::Group{progress.groups[row], std::nullopt};
      if (!is_overridden(settings_[row], progress.groups[row])) continue;
      counted.groups[g]->pending = Value{settings_[row].lr_override, settings_[row].momentum_override};
    }
  }
  runs_ahead_ = false;
  return counted;
}

DeviceProgress DeviceSteps::read_first() const {
  const auto lock = alone();
  require_readable();
  const auto& [ordinal, device] = *plans_.begin();
  return device.plan->read(host_.current_stream(ordinal));
}

LastStep DeviceSteps::last_step() const {
  const DeviceProgress progress = read_first();
  LastStep last;
  last.skipped = progress.counts.last_skipped;
  if (measured_norm_) last.gradient_norm = progress.norm;
  if (clips_) last.clip_coefficient = progress.clip_coefficient;
  return last;
}

}  // namespace clr
