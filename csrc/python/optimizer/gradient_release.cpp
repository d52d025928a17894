// Gradient release: parameters that are updated before the step that they belong to ends.
#include <string>

#include "python/optimizer/optimizer.h"

namespace clr {

void NativeOptimizer::release(const py::list& groups, const py::dict& state, const py::object& parameter,
                              std::size_t position) {
  const Busy busy(*this);
  averages.refuse_inside("backward() with release_gradients()");
  begin(groups, state);
  if (!open_) released_.assign(parameters_.size(), false);
  refuse_release({});
  position = parameters_.find(parameter, position);
  BoundParameter& bound = parameters_[position];
  if (is_released(position)) bound.refuse_second_gradient();
  if (!read_released(bound, state)) return;
  const bool on_device = prepare_release(bound, state);
  TorchReader::get().increment_version(active_);
  if (on_device) {
    devices_.release(plan_);
    for (const DeviceCopy& copy : keep_alive_.device_copies) copy.put_back();
  } else {
    run(cpu_);
  }
  bound.write(keep_alive_);
  released_[position] = true;
  open_ = true;
  TorchReader::get().forget_grad(parameter.ptr());
}

// Tells the parameter's device of the update. Returns false if it is on the CPU.
bool NativeOptimizer::prepare_release(BoundParameter& bound, const py::dict& state) {
  const bool on_device = bound.device() >= 0;
  if (on_device != devices_.are_used() && (open_ || !on_device)) refuse_mixed_devices();
  if (!on_device) return false;
  if (!open_ && tabulate_scales()) read_released(bound, state);
  on_devices();
  devices_.prepare_release(plan_, !open_);
  return true;
}

// Reads the tensors of one parameter into the plan. Returns false if it has no gradient.
bool NativeOptimizer::read_released(BoundParameter& bound, const py::dict& state) {
  bound.drop_new_state();
  const BoundGroup& group = *groups_[bound.group()];
  parameters_.refresh_state(state);
  if (!bound.has_state() && needs_entry(group, true)) parameters_.make_entries(state, {bound.position()});
  py::object gradient = TorchReader::get().grad(bound.parameter().ptr());
  if (bound.shard() != nullptr) shards.localise(bound, gradient, false);
  plan_.gradients = {};
  keep_alive_.gradients.assign(1, gradient);
  const auto read = [&] {
    plan_.slots.clear();
    plan_.copied.clear();
    plan_.copies.clear();
    keep_alive_.device_copies.clear();
    plan_.device_slots = 0;
    bound.look(gradient, plan_.groups[bound.group()].averages || group.averages_at_cycle_ends(), looks_[0]);
    if (!bound.read(group, gradient, looks_[0], {false, false}, plan_, keep_alive_)) return false;
    if (bound.device() >= 0) note_device(bound, bound.position(), {false, false});
    return true;
  };
  plan_.parameter_count = parameters_.size();
  plan_.makes_state = false;
  moved_ = true;  // since apply() looked for overlaps
  if (!read()) return false;
  plan_.makes_state = bound.has_new_state();
  if (plan_.makes_state) read();  // making new state may have run any code
  plan_.in_order = plan_.has_overlap();
  empty(active_);
  active_.append(bound.parameter());
  if (bound.shard() != nullptr) active_.append(py::handle(TorchReader::get().local(bound.parameter().ptr())));
  return true;
}

bool NativeOptimizer::is_released(std::size_t position) const {
  return open_ && position < released_.size() && released_[position];
}

// Throws if an option, a group or a GradScaler needs all gradients before the first update.
void NativeOptimizer::refuse_release(const StepRequest& request) const {
  if (request.scale != 1.0 || !request.found_inf || *request.found_inf) {
    throw std::runtime_error(
        "a GradScaler cannot be used with release_gradients(): gradients are used before it sees them");
  }
  const auto refuse = [](const std::string& what) {
    throw std::runtime_error(what + " cannot be used with release_gradients(), for it needs all gradients at once: " +
                             "leave one of the two out");
  };
  const auto with = [](const char* name, double value) {
    return name + ("=" + py::repr(py::float_(value)).cast<std::string>());
  };
  if (options.max_norm != 0.0) refuse(with("max_grad_norm", options.max_norm));
  if (options.max_value != 0.0) refuse(with("max_grad_value", options.max_value));
  if (options.skip_nonfinite) refuse("skip_nonfinite=True");
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const double coefficient = groups_[g]->settings().trust_coefficient;
    if (coefficient != 0.0) refuse(group_label(g) + with("trust_coefficient", coefficient));
  }
}

void NativeOptimizer::check_release(const py::list& groups) {
  const Busy busy(*this);
  if (!read_groups(groups)) bind_groups(groups);
  refuse_release({});
}

}  // namespace clr
