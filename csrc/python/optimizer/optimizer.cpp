#include "python/optimizer/optimizer.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/norm.h"
#include "python/torch/warning.h"

namespace clr {

namespace {

constexpr std::uint32_t kDrivenUpdates = 10;  // in a row, before a user hears of it
constexpr unsigned kStepsWithoutGradient = 3;

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
  empty(step_.unscaled_);
  step_.busy_ = false;
}

void Step::empty(const py::list& list) {
  const Py_ssize_t size = PyList_GET_SIZE(list.ptr());
  if (size != 0 && PyList_SetSlice(list.ptr(), 0, size, nullptr) != 0) PyErr_Clear();
}

void Step::bind(std::size_t index, py::dict group, py::object schedule) {
  const Busy busy(*this);
  auto bound = std::make_unique<BoundGroup>(std::move(group), index, std::move(schedule));
  if (index >= groups_.size()) groups_.resize(index + 1);
  if (groups_[index] && groups_[index]->group() != bound->group()) {
    places_[groups_[index]->group()] = groups_.size();
    groups_.push_back(std::move(groups_[index]));
  }
  places_[bound->group()] = index;
  groups_[index] = std::move(bound);
}

BoundGroup* Step::binding(const py::dict& group) const {
  const auto place = places_.find(group.ptr());
  return place == places_.end() ? nullptr : groups_[place->second].get();
}

bool Step::is_bound(std::size_t index, const py::dict& group) const {
  return index < groups_.size() && groups_[index] && groups_[index]->is_bound_to(group.ptr());
}

// Reads the groups: the numbers of this step. Returns false if some group is not bound.
bool Step::begin(const py::list& groups, const py::dict& state) {
  if (!read_groups(groups)) {
    reorder(groups);
    if (!read_groups(groups)) return false;
  }
  if (device_steps_.are_used() && !catch_up(groups, state)) return false;
  if (parameters_.refresh(groups_)) device_steps_.forget_parameters();
  if (calls_user_code_) call_user_code();
  warn_of_driver();
  plan_.groups.clear();
  for (auto& group : groups_) plan_.groups.push_back(group->values());
  return true;
}

// What can run Python comes first: user code, warnings, gradients of subclasses, hashes of parameters, new tensors.
// Then all memory is looked at, and then it is written, with nothing in between that could be interrupted.
bool Step::apply(const py::list& groups, const py::dict& state, const StepRequest& request) {
  const Busy busy(*this);
  if (open_) {
    if (request.scale != 1.0 || !request.found_inf || *request.found_inf) {
      throw std::runtime_error(
          "a GradScaler cannot be used with release_gradients(): gradients are used before it sees them");
    }
    refuse_release();
  } else if (!begin(groups, state)) {
    return false;
  }
  parameters_.refresh_state(state);
  plan_.gradients = {request.scale, 1.0, rules.max_value};
  held_.gradients.clear();
  made_entries_.clear();
  bool is_settled = read({writes_unscaled(request), false});
  const bool only_makes_state = !open_ && is_probe(state);
  if (!only_makes_state) is_settled = !warn_of_no_gradient() && is_settled;
  if (only_makes_state || !is_settled) settle(state, {!only_makes_state && writes_unscaled(request), only_makes_state});
  if (only_makes_state) {
    make_state();
    return true;
  }
  if (device_steps_.are_used() || !devices_.empty()) {
    apply_on_devices(request);
    return true;
  }
  skipped_ = !measure(request);
  if (skipped_) {
    write_skipped();
    parameters_.drop_empty_entries(state, made_entries_);
    return true;
  }
  // From here on nothing is refused. The version counters go first: they alone can still fail.
  TorchReader::get().increment_version(active_);
  if (writes_unscaled(request)) TorchReader::get().increment_version(unscaled_);
  run();
  write_state();
  write();
  return true;
}

bool Step::followed_schedule(const py::dict& group) const {
  const BoundGroup* const bound = binding(group);
  return !captured_ && (bound == nullptr || bound->followed_schedule());
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
  places_.clear();
  parameters_.clear();
  active_ = py::list();
  unscaled_ = py::list();
}

// Reads all groups. False if some group is not bound.
bool Step::read_groups(const py::list& groups) {
  if (groups.size() != groups_.size()) return false;
  const Scheduled none;
  const Scheduled* before = &none;
  calls_user_code_ = is_driven_ = false;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const auto place = static_cast<Py_ssize_t>(g);
    // A scale_fn may have been asked for a position set by hand, and have taken groups out.
    if (place >= PyList_GET_SIZE(groups.ptr())) return false;
    if (!groups_[g] || !groups_[g]->is_bound_to(PyList_GET_ITEM(groups.ptr(), place))) return false;
    BoundGroup& group = *groups_[g];
    group.read();
    calls_user_code_ = calls_user_code_ || group.calls_back() || group.is_at_end();
    is_driven_ = is_driven_ || group.is_driven(kDrivenUpdates);
    if (!group.calls_back()) {
      group.prepare_next(*before, *groups_.front());
      before = &group.next();
    }
  }
  return true;
}

// Brings the bound groups into the order of the list: a group keeps what is known of it wherever it stands.
void Step::reorder(const py::list& groups) {
  Groups ordered(groups.size());
  std::unordered_map<PyObject*, std::size_t> places;
  for (std::size_t i = 0; i < ordered.size(); ++i) {
    PyObject* const group = PyList_GET_ITEM(groups.ptr(), static_cast<Py_ssize_t>(i));
    const auto place = places_.find(group);
    if (place == places_.end() || !groups_[place->second]) continue;  // new, or listed twice
    ordered[i] = std::move(groups_[place->second]);
    ordered[i]->set_index(i);
    places[group] = i;
  }
  groups_ = std::move(ordered);
  places_ = std::move(places);
}

// Warnings and scale_fns come before any tensor is looked at: they may do anything.
void Step::call_user_code() {
  for (auto& group : groups_) {
    if (group->is_at_end()) group->warn_of_end();
    if (group->calls_back()) group->prepare_next({}, *groups_.front());
  }
}

void Step::warn_of_driver() {
  if (!is_driven_ || warned_of_driver_ || !warns) return;
  for (auto& group : groups_) {
    if (!group->is_driven(kDrivenUpdates)) continue;
    warned_of_driver_ = true;  // once, even if the warning is an error
    return group->warn_of_driver();
  }
}

// Returns true if it did.
bool Step::warn_of_no_gradient() {
  if (!warns || parameters_.size() == 0) return false;
  steps_without_gradient_ = found_gradient_ ? 0 : steps_without_gradient_ + 1;
  if (steps_without_gradient_ < kStepsWithoutGradient || warned_of_no_gradient_) return false;
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

// True if this is how torch.distributed asks for state to be made: no state, every lr a zero that somebody has written,
// and every gradient zero. Such a step makes state and counts for nothing.
bool Step::is_probe(const py::dict& state) const {
  if (PyDict_GET_SIZE(state.ptr()) != 0) return false;
  const auto asks = [](const auto& group) { return group->has_foreign_zero(); };
  const auto is_zero = [](const py::object& gradient) { return !gradient || !gradient.attr("any")().cast<bool>(); };
  return !groups_.empty() && std::all_of(groups_.begin(), groups_.end(), asks) &&
         std::all_of(held_.gradients.begin(), held_.gradients.end(), is_zero);
}

// Ends a step that only makes state.
void Step::make_state() {
  write_state();
  for (auto& group : groups_) group->restore();
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
  bool complete = true;
  {
    const py::gil_scoped_release release;
    if (plan_.in_order && !held_.copies.empty()) {
      run_one_by_one(kernels);
    } else {
      complete = run_step(plan_, kernels, cuts_);
      put_back();
    }
  }
  require_complete(complete, "weights are undefined");
}

void Step::put_back() const {
  for (const DenseCopy& copy : held_.copies) copy.put_back();
}

// A parameter that is not dense shares memory with another one: each copy is made when its turn has come.
void Step::run_one_by_one(const CpuKernels& kernels) {
  auto copy = held_.copies.begin();
  for (std::size_t i = 0; i < plan_.slots.size(); ++i) {
    auto last = copy;
    while (last != held_.copies.end() && last->slot() == i) ++last;
    for (auto each = copy; each != last; ++each) each->fill();
    run_between(plan_, kernels, {i, 0}, {i + 1, 0});
    for (; copy != last; ++copy) copy->put_back();
  }
}

void Step::write_state() {
  if (!new_state_) return;
  for (BoundParameter& parameter : parameters_) parameter.write(held_);
}

void Step::write() {
  for (auto& group : groups_) {
    if (warns) group->count_driver();
    group->write(held_.replaced);
  }
  open_ = false;
}

void Step::write_skipped() {
  for (auto& group : groups_) group->prepare_skipped();
  for (auto& group : groups_) group->write_skipped(rules.advance_on_skip, held_.replaced);
}

}  // namespace clr
