// A step whose parameters lie on CUDA devices.
#include <algorithm>
#include <cmath>
#include <string>

#include "python/optimizer/optimizer.h"

namespace clr {

namespace {

[[noreturn]] void refuse(const std::string& what) { throw std::runtime_error(what); }

}  // namespace

// Before a step: lets the host learn what the devices have counted, where it has to. What is captured is no update, and
// changes no count. False if some group is not bound.
bool Step::catch_up(const py::list& groups, const py::dict& state) {
  const bool same_parameters = parameters_.is_known(groups_);
  captured_ = device_steps_.is_captured();
  if (captured_) {
    if (!same_parameters) refuse("other parameters cannot be captured in a CUDA graph: call step() once before");
    return true;
  }
  if (same_parameters && !device_steps_.is_behind(groups_)) return true;
  synchronise(state);
  return read_groups(groups);
}

// The slot that `parameter` has just added, as a device wants it.
void Step::note_device(const BoundParameter& parameter, std::size_t position, Reading reading) {
  devices_.push_back(parameter.device());
  Slot& slot = plan_.slots.back();
  slot.random_key = position;
  const bool empty = slot.size == 0;  // then its arrays may be null
  if (parameter.has_other_buffer() && (slot.buffer != nullptr || empty)) {
    device_steps_.note_state(parameter.device(), {position, false, !slot.first || reading.only_makes_state});
  }
  if (parameter.has_other_average() && (slot.average != nullptr || empty)) {
    device_steps_.note_state(parameter.device(), {position, true, parameter.average_holds()});
  }
}

// What a device cannot do.
void Step::refuse_on_devices(const StepRequest& request) const {
  if (devices_.size() != plan_.slots.size()) {
    refuse("parameters on cpu and on cuda cannot be updated by one optimizer: make one for each");
  }
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    if (groups_[g]->calls_back()) {
      refuse(group_label(g) +
             "scale_fn cannot be called on a CUDA device: use a mode, or a CyclicLR beside torch's SGD");
    }
    if (groups_[g]->settings().averaging == Averaging::at_cycle_ends) {
      refuse(group_label(g) + "average='swa' is for cpu parameters: use ema_decay on a CUDA device");
    }
  }
  if (plan_.in_order)
    refuse("parameters that share memory cannot be updated on a CUDA device: make them one parameter");
  const bool several = device_steps_.are_on_several(devices_);
  const char* const global = rules.max_norm != 0.0                                    ? "max_grad_norm"
                             : rules.skip_nonfinite                                   ? "skip_nonfinite"
                             : !request.found_inf || request.grad_scale.at != nullptr ? "a GradScaler"
                                                                                      : nullptr;
  if (several && global != nullptr) {
    refuse(std::string(global) + " needs all gradients on one device: parameters lie on several");
  }
  for (const DeviceNumber& number : {request.grad_scale, request.device_found_inf, request.report_inf}) {
    if (number.at != nullptr && !devices_.empty() && number.device != devices_.front()) {
      refuse("grad_scale and found_inf must lie on the device of the parameters, cuda:" +
             std::to_string(devices_.front()));
    }
  }
}

DeviceStep Step::device_step(const StepRequest& request) const {
  DeviceStep step{};
  step.gradients = {request.scale, 1.0, rules.max_value};
  step.grad_scale = request.grad_scale.at;
  step.found_inf = request.device_found_inf.at;
  step.report_inf = request.report_inf.at;
  step.max_norm = rules.max_norm;
  step.trusts = trusts_;
  step.skips_nonfinite = rules.skip_nonfinite || (!request.found_inf && request.device_found_inf.at == nullptr);
  step.measured = step.max_norm != 0.0 || step.trusts || step.skips_nonfinite;
  step.skipped = request.found_inf.value_or(false);
  step.advances_on_skip = rules.advance_on_skip;
  return step;
}

void Step::apply_on_devices(const StepRequest& request) {
  refuse_on_devices(request);
  const DeviceStep step = device_step(request);
  device_steps_.prepare(groups_, parameters_.size(), plan_.slots, devices_, new_state_, captured_);
  if (step.measured) device_steps_.measure(step);
  measured_norm_ = step.max_norm != 0.0 || step.trusts;
  if (rules.error_if_nonfinite && !step.skipped) {
    if (captured_) refuse("error_if_nonfinite=True has to wait for the norm, and cannot be captured in a CUDA graph");
    const double norm = device_steps_.last_step().norm;
    if (!std::isfinite(norm)) refuse_norm(norm);
  }
  TorchReader::get().increment_version(active_);
  if (writes_unscaled(request)) TorchReader::get().increment_version(unscaled_);
  device_steps_.step(step, captured_);
  put_back();
  if (captured_) return;
  write_state();
  write();
}

void Step::synchronise(const py::dict& state) {
  if (!device_steps_.are_used()) return;
  const DeviceSteps::Empty empty = device_steps_.synchronise(groups_);
  const auto take_out = [&](const std::vector<std::size_t>& positions, const char* key) {
    for (const std::size_t position : positions) {
      const py::object parameter = parameters_[position].parameter();
      if (!state.contains(parameter)) continue;
      py::dict entry = state[parameter];
      if (entry.contains(key)) PyDict_DelItemString(entry.ptr(), key);
      if (entry.empty()) PyDict_DelItem(state.ptr(), parameter.ptr());
      parameters_.forget_state();
    }
  };
  take_out(empty.buffers, "momentum_buffer");
  take_out(empty.averages, "average");
}

void Step::adopt(Step& other) {
  const Busy busy(*this);
  const Busy busy_too(other);
  device_steps_ = std::move(other.device_steps_);
  device_steps_.forget_parameters();
  other.device_steps_ = DeviceSteps();
  warns = other.warns;
  warned_of_driver_ = other.warned_of_driver_;
  warned_of_no_gradient_ = other.warned_of_no_gradient_;
}

bool Step::was_skipped() const {
  return device_steps_.are_used() ? device_steps_.last_step().counts.last_skipped : skipped_;
}

std::optional<double> Step::gradient_norm() const {
  if (!device_steps_.are_used()) return gradient_norm_;
  return measured_norm_ ? std::optional<double>(device_steps_.last_step().norm) : std::nullopt;
}

double Step::clip_coefficient() const {
  if (!device_steps_.are_used()) return plan_.gradients.clip_coefficient;
  return rules.max_norm != 0.0 ? device_steps_.last_step().clip_coefficient : 1.0;
}

}  // namespace clr
