// Reading the tensors of a step: parameters, gradients and state, checked and put into the plan.
#include <algorithm>
#include <string>

#include "python/optimizer/optimizer.h"
#include "python/torch/gc_support.h"
#include "python/torch/warning.h"

namespace clr {

namespace {

constexpr unsigned kStepsWithoutGradient = 3;  // in a row, before the user is warned

py::object local_of(const BoundParameter& parameter) {
  return py::reinterpret_borrow<py::object>(TorchReader::get().local(parameter.parameter().ptr()));
}

}  // namespace

// Reads and checks all tensors into the plan. The only thing that it changes is to add missing entries to
// optimizer.state.
void NativeOptimizer::read_tensors(const py::dict& state, const StepRequest& request) {
  parameters_.refresh_state(state);
  plan_.is_shared = shards.is_shared();
  plan_.gradients = {request.scale, 1.0, options.max_value};
  plan_.parameter_count = parameters_.size();
  keep_alive_.gradients.clear();
  made_entries_.clear();
  bool is_settled = read({writes_unscaled(request), false});
  if (plan_.is_shared != shards.is_shared()) {  // a parameter has become a shard since it was bound
    plan_.is_shared = shards.is_shared();
    is_settled = false;
  }
  only_makes_state_ = asks_for_state_ && !open_ && is_probe(state);
  if (has_voted_) is_settled = false;  // the vote has run any code
  if (found_gradient_) {
    steps_without_gradient_ = 0;
  } else if (!only_makes_state_ && warn_of_no_gradient()) {
    is_settled = false;
  }
  if (!only_makes_state_ && is_settled) return;
  settle(state, {!only_makes_state_ && writes_unscaled(request), only_makes_state_});
}

bool NativeOptimizer::needs_entry(const BoundGroup& group, bool has_gradient) {
  return (has_gradient && (group.keeps_buffers() || group.has_options())) ||
         group.settings().averaging != Averaging::none;
}

// Asks for the memory of parameters behind `position`, of each in stages: first for the parameter and its slot, in the
// end, kApart before its turn, for its gradient.
CLR_INLINE_MEMBER void NativeOptimizer::prefetch(const TorchReader& torch, std::ptrdiff_t position) const {
  const auto at = [&](int stage) { return position + kApart * (TensorInternals::kStages - stage); };
  const auto count = static_cast<std::ptrdiff_t>(parameters_.size());
  const std::ptrdiff_t own = at(-1);
  if (own >= 0 && own < count) {
    prefetch_object(parameters_[static_cast<std::size_t>(own)]);
    prefetch_bytes(plan_.slots.data() + own, sizeof(Slot));
  }
  for (int stage = 0; stage < TensorInternals::kStages; ++stage) {
    const std::ptrdiff_t ahead = at(stage);
    if (ahead < 0 || ahead >= count) continue;
    const BoundParameter& parameter = parameters_[static_cast<std::size_t>(ahead)];
    parameter.prefetch(torch.internals(), static_cast<TensorInternals::Stage>(stage));
    if (plan_.is_shared) parameter.prefetch_shard(torch, static_cast<TensorInternals::Stage>(stage));
  }
}

// Reads all tensors once. Returns false if reading ran, or may have run, any code (tensors may have moved since), or if
// entries in optimizer.state are missing.
bool NativeOptimizer::read(Reading reading) {
  const CollectorPause pause;
  const bool again = !keep_alive_.gradients.empty();
  plan_.slots.clear();
  plan_.slots.reserve(parameters_.size());
  plan_.copied.clear();
  plan_.copies.clear();
  keep_alive_.device_copies.clear();
  without_entry_.clear();
  if (!unscaled_.empty()) empty(unscaled_);
  slot_positions_.clear();
  plan_.device_slots = 0;
  plan_.makes_state = found_gradient_ = false;
  plan_.trusts = plan_.is_shared && Shards::trusts(groups_);  // other processes may, if this one does not
  bool moved = moved_, is_settled = true;
  moved_ = true;  // until all tensors have been read
  Py_ssize_t active = 0;
  const std::size_t count = parameters_.size();
  const TorchReader& torch = TorchReader::get();
  for (std::ptrdiff_t before = -kApart * (TensorInternals::kStages + 1); before < 0; ++before) {
    prefetch(torch, before);
  }
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t end = std::min(begin + kBlock, count);
    if (again) {
      prefetch_again(begin, end);
    } else {
      is_settled = take_gradients(begin, end) && is_settled;
    }
    look(begin, end, begin);
    for (std::size_t position = begin; position < end; ++position) {
      BoundParameter& parameter = parameters_[position];
      const py::object& gradient = keep_alive_.gradients[position];
      found_gradient_ = found_gradient_ || gradient;
      if (open_ && is_released(position)) {
        if (gradient) parameter.refuse_second_gradient();
        found_gradient_ = true;
        continue;
      }
      const BoundGroup& group = *groups_[parameter.group()];
      if (!parameter.has_state() && needs_entry(group, bool(gradient))) without_entry_.push_back(position);
      if (!parameter.read(group, gradient, looks_[position - begin], reading, plan_, keep_alive_)) continue;
      if (plan_.is_shared) slot_positions_.push_back(position);
      if (parameter.device() >= 0) note_device(parameter, position, reading);
      moved = moved || parameter.moved();
      const bool asked_torch = parameter.shard() != nullptr && parameter.moved();  // where its state lies
      is_settled = is_settled && !asked_torch;
      plan_.trusts = plan_.trusts || plan_.slots.back().trusted;
      plan_.makes_state = plan_.makes_state || parameter.has_new_state();
      if (parameter.has_new_state() || asked_torch) look(position + 1, end, begin);  // any code may have run
      if (!gradient) continue;
      moved = list_active(active++, parameter.parameter()) || moved;
      if (parameter.shard() != nullptr) moved = list_active(active++, local_of(parameter)) || moved;
      if (reading.writes_unscaled) unscaled_.append(gradient);
    }
  }
  if (active < PyList_GET_SIZE(active_.ptr())) {
    PyList_SetSlice(active_.ptr(), active, PyList_GET_SIZE(active_.ptr()), nullptr);
    moved = true;
  }
  // Gradients that are written may be others at every step.
  if (moved || reading.writes_unscaled) plan_.in_order = plan_.has_overlap();
  moved_ = false;
  return is_settled && without_entry_.empty() && !plan_.makes_state;
}

// Asks for the memory of a block that is read a second time, when its gradients have been taken already.
void NativeOptimizer::prefetch_again(std::size_t begin, std::size_t end) const {
  const TorchReader& torch = TorchReader::get();
  for (std::size_t position = begin; position < end; ++position) {
    prefetch(torch, static_cast<std::ptrdiff_t>(position));
    for (const auto stage :
         {TensorInternals::Stage::object, TensorInternals::Stage::tensor, TensorInternals::Stage::parts}) {
      const std::size_t ahead =
          position + static_cast<std::size_t>(kApart * (TensorInternals::kStages - static_cast<int>(stage)));
      if (ahead < parameters_.size()) torch.internals().prefetch(stage, keep_alive_.gradients[ahead].ptr());
    }
  }
}

// Takes the gradients of a block of parameters. Returns false if taking them may have run any code.
bool NativeOptimizer::take_gradients(std::size_t begin, std::size_t end) {
  const TorchReader& torch = TorchReader::get();
  for (std::size_t position = begin; position < end; ++position) {
    prefetch(torch, static_cast<std::ptrdiff_t>(position));
    parameters_[position].drop_new_state();
    keep_alive_.gradients.push_back(torch.grad(parameters_[position].parameter().ptr()));
  }
  if (plan_.is_shared) {
    for (const auto stage :
         {TensorInternals::Stage::object, TensorInternals::Stage::tensor, TensorInternals::Stage::parts}) {
      for (std::size_t i = begin; i < end; ++i) torch.prefetch_local(stage, keep_alive_.gradients[i].ptr());
    }
  }
  bool is_plain = true;
  for (std::size_t position = begin; position < end; ++position) {
    BoundParameter& parameter = parameters_[position];
    const bool is_whole = torch.is_plain(parameter.parameter().ptr()) && parameter.shard() == nullptr;
    is_plain =
        (is_whole || shards.localise(parameter, keep_alive_.gradients[position], options.write_unscaled)) && is_plain;
  }
  return is_plain;
}

// Looks at the tensors of parameters of the block that starts at `block`.
void NativeOptimizer::look(std::size_t begin, std::size_t end, std::size_t block) {
  for (std::size_t position = begin; position < end; ++position) {
    BoundParameter& parameter = parameters_[position];
    const bool may_average =
        plan_.groups[parameter.group()].averages || groups_[parameter.group()]->averages_at_cycle_ends();
    parameter.look(keep_alive_.gradients[position], may_average, looks_[position - block]);
  }
}

// Tells the devices about the slot that `parameter` has just added.
void NativeOptimizer::note_device(const BoundParameter& parameter, std::size_t position, Reading reading) {
  ++plan_.device_slots;
  Slot& slot = plan_.slots.back();
  slot.random_key = position;
  const bool empty = slot.size == 0;  // the arrays of an empty slot may be null
  if (parameter.has_other_buffer() && (slot.buffer != nullptr || empty)) {
    devices_.note_state(parameter.device(), {position, false, !slot.first || reading.only_makes_state});
  }
  if (parameter.has_other_average() && (slot.average != nullptr || empty)) {
    devices_.note_state(parameter.device(), {position, true, parameter.average_holds()});
  }
}

// Makes missing entries in optimizer.state and missing state, then reads all tensors again.
void NativeOptimizer::settle(const py::dict& state, Reading reading) {
  if (reading.only_makes_state) {
    for (BoundParameter& parameter : parameters_) parameter.drop_new_state();
    plan_.groups.clear();
    for (const auto& group : groups_) plan_.groups.push_back(group->state_values());
  }
  made_entries_ = without_entry_;
  parameters_.make_entries(state, made_entries_);
  read(reading);
  read(reading);
}

// Puts a parameter into the list of updated parameters. The list is kept from step to step and changes only where a
// different parameter stands. Returns true if it changed.
bool NativeOptimizer::list_active(Py_ssize_t place, const py::object& parameter) {
  if (place == PyList_GET_SIZE(active_.ptr())) {
    active_.append(parameter);
  } else if (PyList_GET_ITEM(active_.ptr(), place) != parameter.ptr()) {
    PyList_SetItem(active_.ptr(), place, Py_NewRef(parameter.ptr()));
  } else {
    return false;
  }
  return true;
}

// Returns true if it warned.
bool NativeOptimizer::warn_of_no_gradient() {
  if (!warns || parameters_.size() == 0) return false;
  if (++steps_without_gradient_ < kStepsWithoutGradient || warned_of_no_gradient_) return false;
  warned_of_no_gradient_ = true;
  const std::string message =
      std::to_string(kStepsWithoutGradient) +
      " steps in a row found no gradient and trained nothing. The parameters, "
      "the first of which is on " +
      described(parameters_[0].parameter(), "device") +
      ", may not be those that the model trains, if it was made or loaded anew since (by to_empty(), for example): "
      "construct the optimizer after that, with model.parameters()";
  warn_user(message);
  return true;
}

// True if this step may be one by which torch.distributed asks for state, as far as all processes of a sharded model
// know alike: none has been made, by an update or at all.
bool NativeOptimizer::may_be_probe() const {
  const auto keeps = [](const auto& group) { return group && needs_entry(*group, true); };
  const bool is_kept = has_updated_ && std::any_of(groups_.begin(), groups_.end(), keeps);
  return asks_for_state_ && !open_ && !is_kept;
}

// True if torch.distributed asks for state to be made: besides zeros for every lr, with zeros for gradients and an
// empty optimizer.state. Such a step makes state and does not count as an update. A process whose shards are zero, or
// empty, cannot tell by itself.
bool NativeOptimizer::is_probe(const py::dict& state) {
  const auto is_zero = [](const py::object& gradient) { return !gradient || !gradient.attr("any")().cast<bool>(); };
  const bool asked = state.empty() && std::all_of(keep_alive_.gradients.begin(), keep_alive_.gradients.end(), is_zero);
  if (!shards.is_shared()) return asked;
  if (!may_be_probe()) return false;
  has_voted_ = true;
  return all_make_state(asked);
}

}  // namespace clr
