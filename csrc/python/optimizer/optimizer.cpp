#include "python/optimizer/optimizer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "python/torch/torch_host.h"
#include "python/torch/warning.h"

namespace clr {

namespace {

constexpr std::uint32_t kDrivenUpdates = 10;  // in a row, before the user is warned

[[noreturn]] void refuse_reentry() {
  throw std::runtime_error("step() was called while a step of the same optimizer is running");
}

}  // namespace

NativeOptimizer::NativeOptimizer(py::object read_schedule, py::object averaged_entries, py::object sharding)
    : averages(std::move(averaged_entries)),
      shards(std::move(sharding)),
      read_schedule_(std::move(read_schedule)),
      devices_(torch_host()) {}

NativeOptimizer::Busy::Busy(NativeOptimizer& optimizer) : optimizer_(optimizer) {
  if (std::exchange(optimizer.busy_, true)) refuse_reentry();
}

NativeOptimizer::Busy::~Busy() {
  optimizer_.keep_alive_.gradients.clear();
  optimizer_.keep_alive_.device_copies.clear();
  optimizer_.keep_alive_.replaced.clear();
  optimizer_.plan_.copies.clear();
  if (!optimizer_.unscaled_.empty()) empty(optimizer_.unscaled_);
  optimizer_.busy_ = false;
}

void NativeOptimizer::empty(const py::list& list) {
  if (PyList_SetSlice(list.ptr(), 0, PyList_GET_SIZE(list.ptr()), nullptr) != 0) PyErr_Clear();
}

// Everything that can run Python comes first: user code, warnings, gradients of subclasses, hashes of parameters, new
// tensors. Then all memory is looked at, and then it is written. Nothing in between can be interrupted.
void NativeOptimizer::apply(const py::list& groups, const py::dict& state, const StepRequest& request) {
  const Busy busy(*this);
  averages.refuse_inside("step()");
  has_voted_ = is_refused_ = only_makes_state_ = false;
  Executor* chosen = nullptr;
  try {
    chosen = prepare(groups, state, request);
  } catch (...) {
    if (shards.is_shared()) tell_refusal(request);
    throw;
  }
  if (chosen == nullptr) return make_state();
  if (plan_.shared.numbers != nullptr) share(request);
  const Measured measured = chosen->decide(plan_, options, request);
  captured_ = measured.is_recorded;
  if (measured.skips) return write_skipped(state);
  // From here on nothing is refused. The version counters come first, because only they can still fail.
  TorchReader::get().increment_version(active_);
  if (writes_unscaled(request)) TorchReader::get().increment_version(unscaled_);
  run(*chosen);
  captured_ ? static_cast<void>(open_ = false) : write();
  // Not before: the other processes have waited for this step too.
  if (was_refused_) tell_of_refusal();
}

// Reads and measures everything. Returns null if the step is only asked to make state.
Executor* NativeOptimizer::prepare(const py::list& groups, const py::dict& state, const StepRequest& request) {
  begin(groups, state);
  if (open_) refuse_release(request);
  if (shards.has_flat()) shards.refuse_flat(groups_, options, request);
  read_tensors(state, request);
  if (only_makes_state_) return nullptr;
  plan_.shared.numbers = nullptr;
  plan_.shared.device = -1;
  if (tabulate_scales()) read({writes_unscaled(request), false});
  if (plan_.is_shared) lay_out_numbers(request);
  Executor& chosen = executor();
  measure(chosen, request);
  return &chosen;
}

// Finds places for what the processes of a sharded model are to add up, if a rule looks at all gradients.
void NativeOptimizer::lay_out_numbers(const StepRequest& request) {
  if (!shards.must_add_up(groups_, options, request)) return;
  while (!shards.lay_out(parameters_, groups_, slot_positions_, plan_)) {
    if (devices_.are_captured()) {
      throw std::runtime_error(
          "a step that adds up over processes for the first time cannot be captured in a CUDA graph: call step() once "
          "before you capture it");
    }
    read({writes_unscaled(request), false});
  }
}

// Adds up what the processes of a sharded model have measured.
void NativeOptimizer::share(const StepRequest& request) {
  shards.add_up(plan_);
  // The others may have taken long, and this process has run other code.
  const std::vector<std::size_t> measured = slot_positions_;
  read({writes_unscaled(request), false});
  if (slot_positions_ != measured) {
    throw std::runtime_error("gradients came or went while the step waited for other processes");
  }
}

// True if all processes are only asked to make state. Throws if another one refuses the step.
bool NativeOptimizer::all_make_state(bool makes_state) {
  const Shards::Flags all = shards.vote(parameters_, groups_, {false, makes_state});
  is_refused_ = all.refuses;
  if (is_refused_) refuse_for_another();
  return all.makes_state;
}

// Tells the other processes that this one refuses the step, if they wait to hear from it.
void NativeOptimizer::tell_refusal(const StepRequest& request) {
  const bool others_wait = (may_be_probe() && !has_voted_) || shards.must_add_up(groups_, options, request);
  if (!others_wait || is_refused_ || only_makes_state_ || devices_.are_captured()) return;
  try {
    shards.vote(parameters_, groups_, {true, false});
  } catch (py::error_already_set& error) {
    error.discard_as_unraisable("telling other processes that a step is refused");
  }
}

// --- groups ---------------------------------------------------------------------------------------------------------

void NativeOptimizer::append(py::dict group, py::object schedule, bool is_obeyed) {
  const Busy busy(*this);
  shards.note(group);
  groups_.append(std::move(group), std::move(schedule), is_obeyed);
}

void NativeOptimizer::adopt(BoundGroups& groups) {
  const Busy busy(*this);
  shards.note_all(groups);
  groups.keep_ids(groups_);
  groups_ = std::move(groups);
  parameters_.clear();
  devices_.forget_parameters();
  moved_ = true;
  has_updated_ = false;
  steps_without_gradient_ = 0;
}

py::object NativeOptimizer::schedule_of(const py::dict& group) const {
  const BoundGroup* const bound = groups_.find(group);
  if (bound == nullptr) return read_schedule_(group, py::none());
  return bound->holds_bound_schedule() ? bound->schedule() : read_schedule_(group, bound->schedule());
}

py::tuple NativeOptimizer::standing(const py::dict& group, std::size_t index) const {
  const auto told = [](const py::object& schedule, const BoundGroup::Standing& standing) {
    const py::object momentum = standing.momentum ? standing.momentum : py::object(py::none());
    return py::make_tuple(schedule, standing.is_overridden, standing.lr, momentum);
  };
  BoundGroup* const bound = groups_.find(group);
  if (bound != nullptr && bound->holds_bound_schedule()) return told(bound->schedule(), bound->standing());
  const py::object schedule = schedule_of(group);
  BoundGroup twin(py::reinterpret_steal<py::dict>(PyDict_Copy(group.ptr())), index, schedule);
  if (bound != nullptr) twin.write_schedule();  // a new schedule overwrites lr and momentum with its own
  return told(schedule, twin.standing());
}

py::tuple NativeOptimizer::last_used(const py::dict& group) const {
  const BoundGroup* const bound = groups_.find(group);
  const std::optional<Value> value = bound == nullptr ? std::nullopt : bound->last_used();
  if (!value) return py::make_tuple(py::none(), py::none());
  const bool on_device = bound->settings().rate != nullptr;
  return py::make_tuple(on_device ? py::float_(group["lr"]) : py::float_(value->lr), value->momentum);
}

bool NativeOptimizer::followed_schedule(const py::dict& group) const {
  const BoundGroup* const bound = groups_.find(group);
  return !captured_ && (bound == nullptr || bound->followed_schedule());
}

// Reads the groups, and with them the numbers of this step. A step that is open keeps the numbers it has read.
void NativeOptimizer::begin(const py::list& groups, const py::dict& state) {
  if (open_) return;
  if (!read_groups(groups)) bind_groups(groups);
  if (devices_.are_used() && !catch_up(groups, state)) bind_groups(groups);
  if (!parameters_.is_known(groups_)) {
    parameters_.bind(groups_);
    shards.bind(parameters_);
    devices_.forget_parameters();
  }
  if (calls_user_code_) call_user_code();
  if (is_driven_ && warns && !warned_of_driver_) warn_of_driver();
  plan_.groups.clear();
  for (const auto& group : groups_) plan_.groups.push_back(group->values());
}

// Binds the groups that are not bound, and reads all.
void NativeOptimizer::bind_groups(const py::list& groups) {
  constexpr int kAttempts = 3;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    groups_.rebind(groups, read_schedule_);
    if (read_groups(groups)) return;
  }
  throw std::runtime_error("param_groups change while a step reads them: a scale_fn must leave them alone");
}

// Reads all groups. Returns false if some group is not bound.
bool NativeOptimizer::read_groups(const py::list& groups) {
  if (groups.size() != groups_.size()) return false;
  const Scheduled none;
  const Scheduled* before = &none;
  calls_user_code_ = is_driven_ = asks_for_state_ = false;
  bool asks_for_state = !groups_.empty();
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const auto place = static_cast<Py_ssize_t>(g);
    // A scale_fn that was called for a position set by hand may have removed groups.
    if (place >= PyList_GET_SIZE(groups.ptr())) return false;
    groups_.prefetch(g);
    if (!groups_[g] || !groups_[g]->is_bound_to(PyList_GET_ITEM(groups.ptr(), place))) return false;
    BoundGroup& group = *groups_[g];
    group.read();
    calls_user_code_ = calls_user_code_ || group.calls_back() || group.is_at_end();
    is_driven_ = is_driven_ || group.is_driven(kDrivenUpdates);
    asks_for_state = asks_for_state && group.has_foreign_zero();
    if (!group.calls_back()) {
      group.prepare_next(*before, groups_.front());
      before = &group.next();
    }
  }
  asks_for_state_ = asks_for_state;
  return true;
}

// Reads the counts of the devices before a step, if they are needed. A captured step is no update and changes no count.
// Returns false if some group is not bound.
bool NativeOptimizer::catch_up(const py::list& groups, const py::dict& state) {
  const bool same_parameters = parameters_.is_known(groups_);
  if (devices_.notice_capture()) {
    if (same_parameters) return true;
    throw std::runtime_error("other parameters cannot be captured in a CUDA graph: call step() once before");
  }
  const bool is_behind = devices_.is_behind(groups_.position_versions()) || sets_aside_invalid_values();
  if (same_parameters && !is_behind) return true;
  take_counts(state);
  return read_groups(groups);
}

// True if somebody has set an lr or momentum where the schedule has no value to use. The devices must be asked for
// that.
bool NativeOptimizer::sets_aside_invalid_values() const {
  return std::any_of(groups_.begin(), groups_.end(),
                     [](const auto& group) { return group->is_overridden() && !group->has_scheduled_value(); });
}

// Gives warnings and calls scale_fns. They may do anything, so this comes before any tensor is looked at.
void NativeOptimizer::call_user_code() {
  for (const auto& group : groups_) {
    if (group->is_at_end()) group->warn_of_end();
    if (group->calls_back()) group->prepare_next({}, groups_.front());
  }
}

void NativeOptimizer::warn_of_driver() {
  for (const auto& group : groups_) {
    if (!group->is_driven(kDrivenUpdates)) continue;
    warned_of_driver_ = true;  // warns once, even if the warning is an error
    return group->warn_of_driver();
  }
}

// --- the update -----------------------------------------------------------------------------------------------------

// Tensors may have been moved since the last step. Where no slot does, the numbers that processes add up show where the
// work is done.
bool NativeOptimizer::runs_on_devices() const {
  return plan_.device_slots != 0 || plan_.shared.device >= 0 || devices_.are_used();
}

// Chooses the executor of this step.
Executor& NativeOptimizer::executor() { return runs_on_devices() ? on_devices() : cpu_; }

Executor& NativeOptimizer::on_devices() {
  plan_.records.clear();
  plan_.cycles = groups_.empty() ? Cycles{} : groups_.front().cycles();
  for (const auto& group : groups_) {
    plan_.records.push_back(
        {&group->settings(), &group->progress(), group->group_id(), group->binding_id(), group->position_version()});
  }
  return devices_;
}

// Calls scale functions ahead if devices will need them. Returns true if it has: they may do anything, so all tensors
// must be read again.
bool NativeOptimizer::tabulate_scales() {
  if (!calls_user_code_ || !runs_on_devices() || devices_.are_captured() || !scales_.refill(groups_)) return false;
  plan_.scales = scales_.tables();
  plan_.scales_version = scales_.version();
  return true;
}

void NativeOptimizer::measure(Executor& executor, const StepRequest& request) {
  std::optional<py::gil_scoped_release> release;
  if (executor.works_without_python() && measures_gradients(plan_, options, request)) release.emplace();
  executor.measure(plan_, options, request);
}

void NativeOptimizer::run(Executor& executor) {
  {
    std::optional<py::gil_scoped_release> release;
    if (executor.works_without_python()) release.emplace();
    executor.run(plan_);
  }
  for (const DeviceCopy& copy : keep_alive_.device_copies) copy.put_back();
}

void NativeOptimizer::write() {
  if (plan_.makes_state) {
    for (BoundParameter& parameter : parameters_) parameter.write(keep_alive_);
  }
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    groups_.prefetch_to_write(g);
    if (warns) groups_[g]->count_driver();
    groups_[g]->write(keep_alive_.replaced);
  }
  open_ = false;
  has_updated_ = true;
}

void NativeOptimizer::write_skipped(const py::dict& state) {
  for (const auto& group : groups_) group->prepare_skipped();
  for (const auto& group : groups_) group->write_skipped(options.advance_on_skip, keep_alive_.replaced);
  parameters_.drop_empty_entries(state, made_entries_);
}

// Ends a step that only makes state.
void NativeOptimizer::make_state() {
  for (BoundParameter& parameter : parameters_) parameter.write(keep_alive_);
  for (const auto& group : groups_) group->restore();
}

LastStep NativeOptimizer::last_step() const { return devices_.are_used() ? devices_.last_step() : cpu_.last_step(); }

void NativeOptimizer::synchronise(const py::dict& state) {
  take_counts(state);
  if (was_refused_) tell_of_refusal();
}

void NativeOptimizer::take_counts(const py::dict& state) {
  if (!devices_.are_used()) return;
  DeviceSteps::Counted counted = devices_.synchronise(groups_.position_versions());
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const auto& group = counted.groups[g];
    if (group) groups_[g]->take(group->progress, group->pending ? &*group->pending : nullptr, counted.last_skipped);
  }
  // An average that waits for the end of a cycle stays where the device will look for it.
  const auto waits = [this](std::size_t position) {
    return groups_[parameters_[position].group()]->averages_at_cycle_ends();
  };
  std::vector<std::size_t>& empty = counted.empty_averages;
  empty.erase(std::remove_if(empty.begin(), empty.end(), waits), empty.end());
  parameters_.take_out(state, counted.empty_buffers, kMomentumBuffer);
  parameters_.take_out(state, empty, kAverage);
  if (counted.refused) {
    was_refused_ = true;
    has_updated_ = has_updated_ && counted.has_applied;
  }
  if (counted.unusable) {
    throw std::runtime_error(
        "a step or a replay on a CUDA device has changed nothing, for at the position where the groups stand a "
        "schedule "
        "had no lr and momentum to use: call step() between replays, which calls a scale_fn for the next 64 cycles, or "
        "1024 iterations with scale_mode='iterations'");
  }
  if (counted.stale) {
    throw std::runtime_error(
        "a CUDA graph was replayed whose steps were captured for other groups, or for another order of them: they have "
        "changed nothing; capture again");
  }
}

// Throws if another process has refused a step on devices, which this process could not know at that step.
void NativeOptimizer::tell_of_refusal() {
  was_refused_ = false;
  throw std::runtime_error(
      "another process refused an earlier step, and says why: that step has changed nothing in any of them");
}

// --- the garbage collector ------------------------------------------------------------------------------------------

int NativeOptimizer::traverse(visitproc visit, void* arg) const {
  if (const int stop = groups_.traverse(visit, arg)) return stop;
  if (const int stop = parameters_.traverse(visit, arg)) return stop;
  if (const int stop = averages.traverse(visit, arg)) return stop;
  if (const int stop = shards.traverse(visit, arg)) return stop;
  if (const int stop = scales_.traverse(visit, arg)) return stop;
  Py_VISIT(read_schedule_.ptr());
  Py_VISIT(active_.ptr());
  Py_VISIT(unscaled_.ptr());
  return 0;
}

void NativeOptimizer::clear() {
  groups_.clear();
  parameters_.clear();
  averages.clear();
  scales_.clear();
  active_ = py::list();
  unscaled_ = py::list();
}

}  // namespace clr
