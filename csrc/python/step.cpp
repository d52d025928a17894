#include "python/step.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/norm.h"

namespace clr {

namespace {

// The place of the binding of this dict, or the end.
std::size_t find(const Groups& groups, PyObject* group) {
  std::size_t i = 0;
  while (i < groups.size() && (!groups[i] || groups[i]->group() != group)) ++i;
  return i;
}

void require_complete(bool complete, const char* meaning) {
  if (!complete)
    throw std::runtime_error(std::string("torch's thread pool failed in the middle of a step: ") + meaning);
}

}  // namespace

Step::Busy::Busy(Step& step) : step_(step) {
  if (step.busy_) throw std::runtime_error("step() was called while a step of the same optimizer is running");
  step.busy_ = true;
}

Step::Busy::~Busy() {
  step_.held_.clear();
  PyObject* const unscaled = step_.unscaled_.ptr();
  if (PyList_SetSlice(unscaled, 0, PyList_GET_SIZE(unscaled), nullptr) != 0) PyErr_Clear();
  step_.busy_ = false;
}

void Step::bind(std::size_t index, py::dict group, py::object schedule, py::object scale_fns) {
  const Busy busy(*this);
  auto bound = std::make_unique<GroupBinding>(std::move(group), index, std::move(schedule), std::move(scale_fns));
  if (index >= groups_.size()) groups_.resize(index + 1);
  if (groups_[index] && groups_[index]->group() != bound->group()) groups_.push_back(std::move(groups_[index]));
  groups_[index] = std::move(bound);
}

void Step::write_schedule(const py::dict& group) {
  const std::size_t i = find(groups_, group.ptr());
  if (i < groups_.size()) groups_[i]->write_schedule();
}

bool Step::is_bound(std::size_t index, const py::dict& group) const {
  return index < groups_.size() && groups_[index] && groups_[index]->is_bound_to(group.ptr());
}

// Reads the groups: the numbers of this step.
Step::Outcome Step::begin(const py::list& groups, const py::dict& state, std::optional<bool> at_cycle_end) {
  if (!read_groups(groups)) {
    reorder(groups);
    if (!read_groups(groups)) return Outcome::not_bound;
  }
  if (device_steps_.are_used() && !catch_up(groups, state)) return Outcome::not_bound;
  if (!at_cycle_end && asks_for_cycle_end()) return Outcome::asks_for_cycle_end;
  if (parameters_.refresh(groups_)) device_steps_.forget_parameters();
  parameters_.refresh_state(state);
  if (calls_user_code_) call_user_code();
  plan_.groups.clear();
  const bool ends_cycle = at_cycle_end.value_or(false) && !groups_.front()->is_by_hand();
  for (auto& group : groups_) plan_.groups.push_back(group->values(ends_cycle));
  return Outcome::done;
}

Step::Outcome Step::apply(const py::list& groups, const py::dict& state, const StepRequest& request) {
  const Busy busy(*this);
  if (open_) {
    if (request.scale != 1.0 || !request.found_inf || *request.found_inf) {
      throw std::runtime_error(
          "a GradScaler cannot be used with release_gradients(): gradients are used before it sees them");
    }
    refuse_release();
    parameters_.refresh_state(state);
  } else {
    const Outcome outcome = begin(groups, state, request.at_cycle_end);
    if (outcome != Outcome::done) return outcome;
  }
  read(request);
  if (device_steps_.are_used() || !devices_.empty()) return apply_on_devices(state, request);
  skipped_ = !measure(request);
  if (skipped_) {
    for (auto& group : groups_) group->write_skipped(rules.advance_on_skip);
    return Outcome::done;
  }
  // From here on nothing is refused. The version counters go first: they alone can still fail.
  TorchReader::get().increment_version(active_);
  if (writes_unscaled(request)) TorchReader::get().increment_version(unscaled_);
  run();
  write(state);
  return Outcome::done;
}

bool Step::followed_schedule(const py::dict& group) const {
  const std::size_t i = find(groups_, group.ptr());
  return !captured_ && (i == groups_.size() || groups_[i]->followed_schedule());
}

int Step::traverse(visitproc visit, void* arg) const {
  for (const auto& group : groups_) {
    if (group == nullptr) continue;
    if (const int stop = group->traverse(visit, arg)) return stop;
  }
  if (const int stop = parameters_.traverse(visit, arg)) return stop;
  Py_VISIT(active_.ptr());
  Py_VISIT(unscaled_.ptr());
  return 0;
}

void Step::clear() {
  groups_.clear();
  parameters_.clear();
  active_ = py::list();
  unscaled_ = py::list();
}

// Reads all groups. False if some group is not bound.
bool Step::read_groups(const py::list& groups) {
  if (groups.size() != groups_.size()) return false;
  const Scheduled none;
  const Scheduled* before = &none;
  calls_user_code_ = false;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const auto place = static_cast<Py_ssize_t>(g);
    // A scale_fn may have been asked for a position set by hand, and have taken groups out.
    if (place >= PyList_GET_SIZE(groups.ptr())) return false;
    if (!groups_[g] || !groups_[g]->is_bound_to(PyList_GET_ITEM(groups.ptr(), place))) return false;
    GroupBinding& group = *groups_[g];
    group.read();
    calls_user_code_ = calls_user_code_ || group.calls_back() || group.is_at_end();
    if (!group.calls_back()) {
      group.prepare_next(*before);
      before = &group.next();
    }
  }
  return true;
}

// Brings the bound groups into the order of the list: a group keeps what is known of it wherever it stands.
void Step::reorder(const py::list& groups) {
  Groups ordered(groups.size());
  for (std::size_t i = 0; i < ordered.size(); ++i) {
    PyObject* const group = PyList_GET_ITEM(groups.ptr(), static_cast<Py_ssize_t>(i));
    const std::size_t found = find(groups_, group);
    if (found == groups_.size()) continue;
    ordered[i] = std::move(groups_[found]);
    ordered[i]->set_index(i);
  }
  groups_ = std::move(ordered);
}

bool Step::asks_for_cycle_end() const {
  return std::any_of(groups_.begin(), groups_.end(),
                     [](const auto& group) { return group->tail().averaging() == Averaging::at_cycle_ends; });
}

// Warnings and scale_fns come before any tensor is looked at: they may do anything.
void Step::call_user_code() {
  for (auto& group : groups_) {
    if (group->is_at_end()) group->warn_of_end();
    if (group->calls_back()) group->prepare_next({});
  }
}

// Reads and checks groups and tensors into the plan.
void Step::read(const StepRequest& request) {
  plan_.slots.clear();
  plan_.copied.clear();
  devices_.clear();
  plan_.gradients = {request.scale, 1.0, rules.max_value};
  new_state_ = false;
  trusts_ = false;
  bool moved = moved_;
  moved_ = true;  // until all have been read
  Py_ssize_t active = 0;
  std::size_t position = 0;
  for (ParameterBinding& parameter : parameters_) {
    const std::size_t place = position++;
    if (is_released(place)) {
      if (TorchReader::get().grad(parameter.parameter().ptr())) parameter.refuse_second_gradient();
      continue;
    }
    if (!parameter.read(*groups_[parameter.group()], writes_unscaled(request), plan_, held_)) continue;
    if (parameter.device() >= 0) note_device(parameter, place);
    moved = moved || parameter.moved();
    new_state_ = new_state_ || parameter.has_new_state();
    trusts_ = trusts_ || plan_.slots.back().trusted;
    if (!parameter.has_gradient()) continue;
    moved = list_active(active++, parameter.parameter()) || moved;
    if (writes_unscaled(request)) unscaled_.append(TorchReader::get().grad(parameter.parameter().ptr()));
  }
  if (active < PyList_GET_SIZE(active_.ptr())) {
    PyList_SetSlice(active_.ptr(), active, PyList_GET_SIZE(active_.ptr()), nullptr);
    moved = true;
  }
  if (moved) plan_.in_order = plan_.has_overlap();
  moved_ = false;
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

// The read-only pass over all gradients, if anything depends on it: what they are multiplied by, or that there is no
// update. Returns whether there is.
bool Step::measure(const StepRequest& request) {
  gradient_norm_.reset();
  const CpuKernels& kernels = *selected_isa().kernels;
  const bool looks_for_inf = !request.found_inf || rules.skip_nonfinite;
  bool finite = true;
  if (rules.max_norm != 0.0 || trusts_) {
    {
      const py::gil_scoped_release release;
      finite = run_norms(plan_, kernels, rules.max_value / request.scale, norms_);
    }
    require_complete(finite, "nothing has changed");
    finite = norms_.total.finite;
    const DoubleDouble norm = scaled(square_root(norms_.total.squares), request.scale);
    gradient_norm_ = norm.hi;
    if (rules.max_norm != 0.0) plan_.gradients.clip_coefficient = clr::clip_coefficient(norm, rules.max_norm);
  } else if (looks_for_inf) {
    {
      const py::gil_scoped_release release;
      finite = run_finite_check(plan_, kernels, norms_);
    }
    require_complete(finite, "nothing has changed");
    finite = norms_.total.finite;
  }
  if (request.found_inf.value_or(false) || (!finite && looks_for_inf)) return false;
  if (rules.error_if_nonfinite && gradient_norm_ && !std::isfinite(*gradient_norm_)) {
    refuse_norm(*gradient_norm_);
  }
  if (trusts_) apply_trust_ratios();
  return true;
}

void Step::refuse_norm(double norm) {
  throw std::runtime_error("the norm of all gradients is " + py::repr(py::float_(norm)).cast<std::string>() +
                           ": with error_if_nonfinite=True that is an error, and nothing has changed");
}

void Step::apply_trust_ratios() {
  const double factor = plan_.gradients.scale * plan_.gradients.clip_coefficient;
  for (std::size_t i = 0; i < plan_.slots.size(); ++i) {
    Slot& slot = plan_.slots[i];
    if (!slot.trusted) continue;
    const GroupValues& group = plan_.groups[slot.group];
    slot.trust_ratio = trust_ratio(group.trust_coefficient, group.trust_eps, group.weight_decay,
                                   norms_.slots[i].parameter, factor * norms_.slots[i].gradient);
  }
}

void Step::run() {
  const CpuKernels& kernels = *selected_isa().kernels;
  if (plan_.in_order && !held_.copies.empty()) return run_one_by_one(kernels);
  bool complete = false;
  {
    const py::gil_scoped_release release;
    complete = run_step(plan_, kernels, cuts_);
  }
  require_complete(complete, "weights are undefined");
  copy_back();
}

void Step::copy_back() const {
  for (const DenseCopy& copy : held_.copies) TorchReader::get().copy(copy.original, copy.dense);
}

// A parameter that is not dense shares memory with another one: each copy is made when its turn has come.
void Step::run_one_by_one(const CpuKernels& kernels) {
  auto copy = held_.copies.begin();
  for (std::size_t i = 0; i < plan_.slots.size(); ++i) {
    auto last = copy;
    while (last != held_.copies.end() && last->slot == i) ++last;
    for (auto each = copy; each != last; ++each) TorchReader::get().copy(each->dense, each->original);
    run_between(plan_, kernels, {i, 0}, {i + 1, 0});
    for (; copy != last; ++copy) TorchReader::get().copy(copy->original, copy->dense);
  }
}

void Step::write(const py::dict& state) {
  if (new_state_) {
    for (ParameterBinding& parameter : parameters_) parameter.write(state);
    parameters_.forget_state();
  }
  for (auto& group : groups_) group->write();
  open_ = false;
}

}  // namespace clr
