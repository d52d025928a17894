// Reading the tensors of a step: parameters, gradients and state, checked and put into the plan.
#include <algorithm>

#include "python/optimizer/optimizer.h"

namespace clr {

bool Step::needs_entry(const BoundGroup& group, bool has_gradient) {
  return (has_gradient && (group.keeps_buffers() || !group.has_no_options())) ||
         group.settings().averaging != Averaging::none;
}

// Reads and checks all tensors into the plan. Returns false if that ran, or may have run, any code, for which tensors
// may have moved since, or if entries in optimizer.state are missing.
bool Step::read(Reading reading) {
  const bool again = !held_.gradients.empty();
  plan_.slots.clear();
  plan_.copied.clear();
  held_.copies.clear();
  without_entry_.clear();
  devices_.clear();
  empty(unscaled_);
  new_state_ = trusts_ = found_gradient_ = false;
  bool moved = moved_, is_settled = true;
  moved_ = true;  // until all have been read
  Py_ssize_t active = 0;
  const std::size_t count = parameters_.size();
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t end = std::min(begin + kBlock, count);
    if (!again) is_settled = take_gradients(begin, end) && is_settled;
    look(begin, end, begin);
    for (std::size_t position = begin; position < end; ++position) {
      BoundParameter& parameter = parameters_[position];
      const py::object& gradient = held_.gradients[position];
      found_gradient_ = found_gradient_ || gradient;
      if (open_ && is_released(position)) {
        if (gradient) parameter.refuse_second_gradient();
        found_gradient_ = true;
        continue;
      }
      const BoundGroup& group = *groups_[parameter.group()];
      if (!parameter.has_state() && needs_entry(group, bool(gradient))) without_entry_.push_back(position);
      if (!parameter.read(group, gradient, looks_[position - begin], reading, plan_, held_)) continue;
      if (parameter.device() >= 0) note_device(parameter, position, reading);
      moved = moved || parameter.moved();
      trusts_ = trusts_ || plan_.slots.back().trusted;
      if (parameter.has_new_state()) {
        new_state_ = true;
        look(position + 1, end, begin);  // making it may have run any code
      }
      if (!gradient) continue;
      moved = list_active(active++, parameter.parameter()) || moved;
      if (reading.writes_unscaled) unscaled_.append(gradient);
    }
  }
  if (active < PyList_GET_SIZE(active_.ptr())) {
    PyList_SetSlice(active_.ptr(), active, PyList_GET_SIZE(active_.ptr()), nullptr);
    moved = true;
  }
  if (moved) plan_.in_order = plan_.has_overlap();
  moved_ = false;
  return is_settled && without_entry_.empty() && !new_state_;
}

// Takes the gradients of a block of parameters. Returns false if that may have run any code.
bool Step::take_gradients(std::size_t begin, std::size_t end) {
  const TorchReader& torch = TorchReader::get();
  bool is_plain = true;
  for (std::size_t position = begin; position < end; ++position) {
    if (position + kBlock < parameters_.size()) parameters_[position + kBlock].prefetch();
    BoundParameter& parameter = parameters_[position];
    parameter.drop_new_state();
    is_plain = is_plain && torch.is_plain(parameter.parameter().ptr());
    held_.gradients.push_back(torch.grad(parameter.parameter().ptr()));
  }
  return is_plain;
}

// Looks at the tensors of parameters of the block that starts at `block`.
void Step::look(std::size_t begin, std::size_t end, std::size_t block) {
  for (std::size_t position = begin; position < end; ++position) {
    BoundParameter& parameter = parameters_[position];
    parameter.look(held_.gradients[position], plan_.groups[parameter.group()].averages, looks_[position - block]);
  }
}

// Makes missing entries in optimizer.state and missing state, then reads all tensors again.
void Step::settle(const py::dict& state, Reading reading) {
  if (reading.only_makes_state) {
    for (BoundParameter& parameter : parameters_) parameter.drop_new_state();
    plan_.groups.clear();
    for (auto& group : groups_) plan_.groups.push_back(group->state_values());
  }
  made_entries_ = without_entry_;
  parameters_.make_entries(state, made_entries_);
  read(reading);
  read(reading);
}

// The list of updated parameters is kept from step to step; it changes only where another one stands. Returns whether
// it did.
bool Step::list_active(Py_ssize_t place, const py::object& parameter) {
  if (place == PyList_GET_SIZE(active_.ptr())) {
    active_.append(parameter);
  } else if (PyList_GET_ITEM(active_.ptr(), place) != parameter.ptr()) {
    PyList_SetItem(active_.ptr(), place, Py_NewRef(parameter.ptr()));
  } else {
    return false;
  }
  return true;
}

}  // namespace clr
