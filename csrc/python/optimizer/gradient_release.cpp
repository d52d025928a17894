// Gradient release: parameters that are updated before the step that they belong to ends.
#include <algorithm>
#include <string>

#include "python/optimizer/optimizer.h"

namespace clr {

bool Step::release(const py::list& groups, const py::dict& state, const py::object& parameter, std::size_t position) {
  const Busy busy(*this);
  if (!open_) {
    if (!begin(groups, state)) return false;
    released_.assign(parameters_.size(), false);
  }
  position = parameters_.find(parameter, position);
  refuse_release();
  BoundParameter& bound = parameters_[position];
  if (is_released(position)) bound.refuse_second_gradient();
  bound.drop_new_state();
  const BoundGroup& group = *groups_[bound.group()];
  parameters_.refresh_state(state);
  if (!bound.has_state() && needs_entry(group, true)) parameters_.make_entries(state, {position});
  const py::object gradient = TorchReader::get().grad(parameter.ptr());
  plan_.gradients = {};
  const auto read = [&] {
    plan_.slots.clear();
    plan_.copied.clear();
    held_.copies.clear();
    bound.look(gradient, plan_.groups[bound.group()].averages, looks_[0]);
    return bound.read(group, gradient, looks_[0], {false, false}, plan_, held_);
  };
  if (!read()) return true;
  if (bound.has_new_state()) read();  // making it may have run any code
  if (bound.device() >= 0) {
    throw std::runtime_error("release_gradients() works with cpu parameters only: leave it out on " +
                             described(parameter, "device"));
  }
  moved_ = true;  // since apply() looked for overlaps
  plan_.in_order = plan_.has_overlap();
  py::list active;
  active.append(parameter);
  TorchReader::get().increment_version(active);
  run();
  bound.write(held_);
  released_[position] = true;
  open_ = true;
  TorchReader::get().forget_grad(parameter.ptr());
  return true;
}

bool Step::is_released(std::size_t position) const {
  return open_ && position < released_.size() && released_[position];
}

// What needs all gradients before the first update.
void Step::refuse_release() const {
  const auto trusts = [](const GroupValues& group) { return group.trust_coefficient != 0.0; };
  const char* const name = rules.max_norm != 0.0                                           ? "max_grad_norm"
                           : rules.max_value != 0.0                                        ? "max_grad_value"
                           : rules.skip_nonfinite                                          ? "skip_nonfinite"
                           : std::any_of(plan_.groups.begin(), plan_.groups.end(), trusts) ? "trust_coefficient"
                                                                                           : nullptr;
  if (name == nullptr) return;
  throw std::runtime_error(std::string(name) +
                           " cannot be used with release_gradients(): it needs all gradients at "
                           "once. Leave one of the two out");
}

}  // namespace clr
