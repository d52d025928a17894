#include "python/optimizer/group.h"

#include <cmath>
#include <utility>

#include "python/torch/dict_version.h"
#include "python/torch/group_keys.h"
#include "python/torch/tensor_view.h"
#include "python/torch/warning.h"

namespace clr {

namespace {

// Interned or not: keys that come out of a checkpoint need not be.
bool same_key(PyObject* a, PyObject* b) { return a == b || (PyUnicode_Check(a) && PyUnicode_Compare(a, b) == 0); }

// Not the same number twice.
std::uint64_t fresh_number() {
  static std::uint64_t last = 0;  // guarded by the GIL
  return ++last;
}

bool same_bits(double a, double b) { return double_to_bits(a) == double_to_bits(b); }

}  // namespace

GroupBinding::GroupBinding(py::dict group, std::size_t index, py::object schedule)
    : group_(std::move(group)),
      bound_{},
      id_(fresh_number()),
      origin_(fresh_number()),
      index_(index),
      schedule_(std::move(schedule)),
      bound_object_(schedule_.attr("_native")),
      scale_fns_(schedule_.attr("_scale_fns")) {
  bound_ = bound_object_.cast<const BoundSchedule&>().view();
  schedule_item_ = reader().item(keys().schedule);
  read_position();
  read_settings();
  require_legal_parameters();
}

Scheduled GroupBinding::scheduled() const {
  Scheduled here = {bound_.pieces, step_, current_, step_object_, py::float_(current_.lr), py::object()};
  if (has_momentum(current_)) here.momentum = py::float_(current_.momentum);
  return here;
}

void GroupBinding::write_schedule() {
  if (bound_.is_constant) current_ = bound_.value(step_, scale_fns_);
  written_ = scheduled();
  write_items();
}

void GroupBinding::restore() {
  write_items();
  forget();
}

bool GroupBinding::holds_bound_schedule() const {
  return PyDict_GetItemWithError(group_.ptr(), keys().schedule) == schedule_item_.ptr();
}

bool GroupBinding::is_bound_to(PyObject* group) {
  if (group != group_.ptr()) return false;
  const std::uint64_t version = version_of(group);
  unchanged_ = (version_ != 0 && version_ == version) || (!entries_.empty() && is_as_remembered());
  version_ = unchanged_ ? version : 0;
  return unchanged_ || holds_bound_schedule();
}

bool GroupBinding::is_as_remembered() const {
  Py_ssize_t place = 0;
  PyObject *key = nullptr, *value = nullptr;
  std::size_t i = 0;
  for (; PyDict_Next(group_.ptr(), &place, &key, &value); ++i) {
    if (i >= entries_.size() || entries_[i].first != key || entries_[i].second != value) return false;
  }
  return i == entries_.size();
}

// Remembers the dict as read() found it. What somebody changes between reading and writing, a scale_fn or another
// thread while the kernel runs, is found at the next step. Every value that matters is kept alive by a member: no other
// object can take its address.
void GroupBinding::remember() {
  const bool scheduled = has_momentum(current_);
  if (by_hand_ || !dampening_.object || !weight_decay_.object || !(scheduled || momentum_.object)) return;
  Py_ssize_t place = 0;
  PyObject *key = nullptr, *value = nullptr;
  bool as_read = written_.lr && (written_.momentum || !scheduled);
  while (PyDict_Next(group_.ptr(), &place, &key, &value)) {
    const auto here = static_cast<std::uint32_t>(entries_.size());
    if (same_key(key, keys().params)) as_read = as_read && value == parameters_.ptr();
    if (same_key(key, keys().applied_steps)) {
      place_.step = here;
      as_read = as_read && value == step_object_.ptr();
    }
    if (same_key(key, keys().lr)) {
      place_.lr = here;
      as_read = as_read && value == written_.lr.ptr();
    }
    if (same_key(key, keys().momentum)) {
      place_.momentum = here;
      as_read = as_read && (!scheduled || value == written_.momentum.ptr());
    }
    entries_.emplace_back(key, value);
  }
  if (!as_read) return forget();
  version_ = version_of(group_.ptr());
}

void GroupBinding::forget() {
  entries_.clear();
  version_ = 0;
}

void GroupBinding::refresh(Setting& setting, PyObject* key) const {
  const py::object object = reader().item(key);
  if (object.is(setting.object)) return;
  setting.value = reader().number(key, object.ptr());
  // Only immutable numbers may be recognised by identity later; a tensor can change in place.
  const bool immutable =
      PyFloat_CheckExact(object.ptr()) || PyLong_CheckExact(object.ptr()) || PyBool_Check(object.ptr());
  setting.object = immutable ? object : py::object();
}

// After the last update the position is one further, from where no step is made.
void GroupBinding::read_position() {
  const py::object object = reader().item(keys().applied_steps);
  if (object.is(step_object_)) return;
  const unsigned long long step = PyLong_Check(object.ptr()) ? PyLong_AsUnsignedLongLong(object.ptr()) : 0;
  if (!PyLong_Check(object.ptr()) || PyErr_Occurred() || step > kLastStep + 1) {
    PyErr_Clear();
    refuse_position(object.ptr());
  }
  const bool moved = !step_object_ || step != step_;
  origin_ = fresh_number();
  const Value value = moved ? bound_.value(step, scale_fns_) : current_;
  current_ = value;
  step_ = step;
  step_object_ = object;
}

void GroupBinding::refuse_position(PyObject* object) const {
  throw py::value_error(reader().name_value(keys().applied_steps, object) + " must be an int from 0 to 2**63 - 2");
}

// Obeys what stands in the group. Returns true if that is another value than the schedule's.
bool GroupBinding::read_scheduled(PyObject* key, const py::object& written, double scheduled, double& value) const {
  const py::object object = reader().item(key);
  value = scheduled;
  if (written && object.is(written)) return false;
  value = reader().number(key, object.ptr());
  return !same_bits(value, scheduled);
}

// What stands in the group is the value of a constant schedule. `known`: the object that has been read already.
void GroupBinding::read_constant(PyObject* key, py::object& known, double& value) const {
  const py::object object = reader().item(key);
  if (known && object.is(known)) return;
  value = reader().number(key, object.ptr());
  known = PyFloat_CheckExact(object.ptr()) ? object : py::object();  // a tensor can change in place
}

// lr and momentum of this update, as far as a schedule has them.
void GroupBinding::read_values() {
  const bool is_ours = written_.lr && reader().item(keys().lr).is(written_.lr);
  by_hand_ = lr_by_hand_ = false;
  if (bound_.is_constant) {
    read_constant(keys().lr, written_.lr, current_.lr);
    if (has_momentum(current_)) read_constant(keys().momentum, written_.momentum, current_.momentum);
    values_.lr = current_.lr;
    if (has_momentum(current_)) values_.momentum = current_.momentum;
  } else {
    lr_by_hand_ = by_hand_ = read_scheduled(keys().lr, written_.lr, current_.lr, values_.lr);
    if (has_momentum(current_)) {
      by_hand_ |= read_scheduled(keys().momentum, written_.momentum, current_.momentum, values_.momentum);
    }
  }
  foreign_zero_ = !is_ours && values_.lr == 0.0;
}

GroupBinding::Standing GroupBinding::standing() {
  read_position();
  const Value scheduled = bound_.is_constant ? bound_.value(step_, scale_fns_) : current_;
  double lr = 0.0, momentum = 0.0;
  bool is_overridden = read_scheduled(keys().lr, bound_.is_constant ? py::object() : written_.lr, scheduled.lr, lr);
  const bool has = has_momentum(scheduled);
  if (has) {
    const py::object written = bound_.is_constant ? py::object() : written_.momentum;
    is_overridden |= read_scheduled(keys().momentum, written, scheduled.momentum, momentum);
  }
  if (is_overridden) return {true, reader().item(keys().lr), has ? reader().item(keys().momentum) : py::object()};
  return {false, py::float_(scheduled.lr), has ? py::object(py::float_(scheduled.momentum)) : py::object()};
}

// Everything that the schedule does not give.
void GroupBinding::read_settings() {
  refresh(dampening_, keys().dampening);
  refresh(weight_decay_, keys().weight_decay);
  values_.nesterov = reader().flag(keys().nesterov);
  values_.maximize = reader().flag(keys().maximize);
  if (!has_momentum(current_)) {
    refresh(momentum_, keys().momentum);
    values_.momentum = momentum_.value;
    require(is_valid_momentum(values_.momentum), "momentum", values_.momentum, "between 0 and 1");
  }
  values_.dampening = dampening_.value;
  values_.weight_decay = weight_decay_.value;
  require(std::isfinite(values_.dampening), "dampening", values_.dampening, "finite");
  require(is_valid_lr(values_.weight_decay), "weight_decay", values_.weight_decay, "finite and not negative");
  if (values_.nesterov) {
    require(values_.dampening == 0.0, "dampening", values_.dampening, "0 with nesterov=True");
    require(keeps_buffers(), "momentum", values_.momentum, "above 0 with nesterov=True");
  }
  const std::uint64_t skipped = reader().count(keys().skipped_steps, INT64_MAX, "an int from 0 on");
  const std::uint64_t before[] = {skipped_, tail_.n_averaged(), tail_.n_updates()};
  tail_.read(reader());
  skipped_ = skipped;
  if (before[0] != skipped || before[1] != tail_.n_averaged() || before[2] != tail_.n_updates()) {
    origin_ = fresh_number();
  }
}

// Can the parameters be kept as the settings say? What is no tensor, or of another dtype, is for read() to refuse.
void GroupBinding::require_legal_parameters() const {
  const py::object parameters = reader().item(keys().params);
  if (tail_.is_plain() || !PyList_Check(parameters.ptr())) return;
  const TorchReader& torch = TorchReader::get();
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(parameters.ptr()); ++i) {
    PyObject* const parameter = PyList_GET_ITEM(parameters.ptr(), i);
    const std::optional<DType> dtype = torch.is_tensor(parameter) ? torch.dtype(parameter) : std::nullopt;
    if (dtype) tail_.require_legal(*dtype, index_, static_cast<std::size_t>(i));
  }
}

void GroupBinding::require(bool ok, const char* name, double value, const char* must) const {
  if (ok) return;
  throw py::value_error(group_name(index_) + name + "=" + py::repr(py::float_(value)).cast<std::string>() +
                        " at applied_steps=" + std::to_string(step_) + " must be " + must);
}

void GroupBinding::read() {
  if (unchanged_) {
    values_.lr = current_.lr;
    if (has_momentum(current_)) values_.momentum = current_.momentum;
    by_hand_ = lr_by_hand_ = foreign_zero_ = false;
  } else {
    forget();
    parameters_ = reader().item(keys().params);
    if (!PyList_Check(parameters_.ptr())) {
      throw py::type_error(reader().name_value(keys().params, parameters_.ptr()) + " must be a list");
    }
    read_position();
    read_values();
    read_settings();
  }
  if (step_ > kLastStep) refuse_position(step_object_.ptr());
  require_valid_values();
  if (!unchanged_) remember();
}

void GroupBinding::require_valid_values() const {
  require(is_valid_lr(values_.lr), "lr", values_.lr, "finite and not negative");
  require(is_valid_momentum(values_.momentum), "momentum", values_.momentum, "between 0 and 1");
}

void GroupBinding::check_values() {
  read_values();
  require_valid_values();
}

// The object of this value among two that may have it, or a new one.
py::object GroupBinding::shared(double value, double a, const py::object& object_a, double b,
                                const py::object& object_b) {
  if (object_a && same_bits(value, a)) return object_a;
  if (object_b && same_bits(value, b)) return object_b;
  return py::float_(value);
}

void GroupBinding::warn_of_end() const {
  const std::string message = group_name(index_) + "applied_steps=" + std::to_string(step_) +
                              " is past the end of its schedule, which holds its last value: extend it, or stop";
  warn_user(message);
}

void GroupBinding::warn_of_driver() const {
  const std::string message =
      group_name(index_) + "something else has written lr before " + std::to_string(driven_ + 1) +
      " updates in a row, and each time its schedule stood still, at applied_steps=" + std::to_string(step_) +
      ": leave the other scheduler out, or give the optimizer lr= in place of its own schedule to be driven by it";
  warn_user(message);
}

void GroupBinding::prepare_next(const Scheduled& before) {
  const std::uint64_t step = by_hand_ ? step_ : step_ + 1;
  const bool same_step = !by_hand_ && before.schedule != nullptr && before.step == step;
  if (same_step && before.schedule == bound_.pieces && !calls_back() && !bound_.is_constant) {
    next_ = before;
    return;
  }
  const Value value = by_hand_ || bound_.is_constant ? current_ : bound_.value(step, scale_fns_);
  next_.schedule = bound_.pieces;
  next_.step = step;
  next_.value = value;
  next_.step_object = by_hand_ ? step_object_ : same_step ? before.step_object : py::int_(step);
  if (bound_.is_constant) {
    next_.lr = written_.lr;
    next_.momentum = written_.momentum;
    return;
  }
  // Who puts back the object that was written before must find it recognised where its value still holds.
  next_.lr = shared(value.lr, written_.value.lr, written_.lr, before.value.lr, before.lr);
  next_.momentum = py::object();
  if (has_momentum(value)) {
    next_.momentum =
        shared(value.momentum, written_.value.momentum, written_.momentum, before.value.momentum, before.momentum);
  }
}

void GroupBinding::write_items() {
  if (written_.lr) set_group_item(group_.ptr(), keys().lr, written_.lr);
  if (written_.momentum) set_group_item(group_.ptr(), keys().momentum, written_.momentum);
}

// The objects that stand in a group that nobody has touched live on in next_.
void GroupBinding::write_next(std::vector<py::object>& replaced) {
  std::swap(written_, next_);
  if (!unchanged_) replaced.push_back(std::move(step_object_));
  followed_ = !by_hand_;
  step_ = written_.step;
  step_object_ = written_.step_object;
  current_ = written_.value;
  const auto write = [&](PyObject* key, const py::object& value) {
    unchanged_ ? set_group_item(group_.ptr(), key, value) : replace_group_item(group_.ptr(), key, value, replaced);
  };
  write(keys().applied_steps, written_.step_object);
  if (bound_.is_constant) return;
  write(keys().lr, written_.lr);
  if (written_.momentum) write(keys().momentum, written_.momentum);
}

void GroupBinding::write(std::vector<py::object>& replaced) {
  // Without versions, what counts is looked at anew at every step.
  if (tail_.counts()) entries_.clear();
  const bool untouched = version_ != 0 && version_ == version_of(group_.ptr());
  const bool same_keys = has_momentum(current_) == has_momentum(next_.value);
  tail_.write(group_.ptr(), replaced);
  write_next(replaced);
  if (!same_keys) return forget();
  if (untouched) {
    entries_.clear();  // the version says all
    version_ = version_of(group_.ptr());
    return;
  }
  version_ = 0;
  if (entries_.empty()) return;
  entries_[place_.step].second = written_.step_object.ptr();
  entries_[place_.lr].second = written_.lr.ptr();
  if (written_.momentum) entries_[place_.momentum].second = written_.momentum.ptr();
}

void GroupBinding::prepare_skipped() {
  if (skipped_ == INT64_MAX) {
    throw py::value_error(reader().name_value(keys().skipped_steps, reader().item(keys().skipped_steps).ptr()) +
                          " must be below 2**63 - 1: a skipped step is to be counted on it");
  }
  next_skipped_ = py::int_(skipped_ + 1);
}

void GroupBinding::write_skipped(bool advance, std::vector<py::object>& replaced) {
  if (advance && !by_hand_) write_next(replaced);  // what was set by hand waits for the update it was set for
  followed_ = false;
  ++skipped_;
  replace_group_item(group_.ptr(), keys().skipped_steps, next_skipped_, replaced);
  forget();
}

int GroupBinding::traverse(visitproc visit, void* arg) const {
  Py_VISIT(group_.ptr());
  Py_VISIT(schedule_.ptr());
  Py_VISIT(schedule_item_.ptr());
  Py_VISIT(parameters_.ptr());
  Py_VISIT(scale_fns_.ptr());
  return 0;
}

}  // namespace clr
