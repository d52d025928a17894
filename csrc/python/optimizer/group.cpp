// The half of BoundGroup that reads: settings, position and values, and whether anything in the dict has changed.
#include "python/optimizer/group.h"

#include <cmath>
#include <utility>

#include "python/optimizer/rate_tensor.h"
#include "python/torch/group_keys.h"
#include "python/torch/tensor_checks.h"
#include "python/torch/warning.h"

namespace clr {

namespace {

// Compares keys whether they are interned or not: keys from a checkpoint need not be interned.
bool same_key(PyObject* a, PyObject* b) { return a == b || (PyUnicode_Check(a) && PyUnicode_Compare(a, b) == 0); }

// Returns a number that it has not returned before, and never 0.
std::uint64_t fresh_number() {
  static std::uint64_t last = 0;  // guarded by the GIL
  return ++last;
}

}  // namespace

BoundGroup::BoundGroup(py::dict group, std::size_t index, py::object schedule)
    : group_(std::move(group)),
      group_id_(fresh_number()),
      binding_id_(fresh_number()),
      position_version_(fresh_number()),
      index_(index),
      schedule_(std::move(schedule)),
      bound_object_(schedule_.attr("_native")),
      scale_fns_(schedule_.attr("_scale_fns")) {
  bound_ = bound_object_.cast<const BoundSchedule&>().view();
  settings_.pieces = bound_.pieces;
  settings_.piece_count = bound_.count;
  settings_.constant = bound_.is_constant;
  settings_.momentum_override = std::nan("");
  schedule_item_ = reader().item(keys().schedule);
  read_position();
  read_settings();
  require_legal_parameters();
}

bool BoundGroup::holds_bound_schedule() const {
  return PyDict_GetItemWithError(group_.ptr(), keys().schedule) == schedule_item_.ptr();
}

bool BoundGroup::is_bound_to(PyObject* group) {
  if (group != group_.ptr()) return false;
  const std::uint64_t version = group_.version();
  change_ = version_ != 0 && version_ == version ? Change::none : entries_.empty() ? Change::any : change();
  version_ = is_unchanged() ? version : 0;
  return is_unchanged() || holds_bound_schedule();
}

// Compares the dict with what is remembered of it.
BoundGroup::Change BoundGroup::change() const {
  Change found = Change::none;
  Py_ssize_t place = 0;
  PyObject *key = nullptr, *value = nullptr;
  std::size_t i = 0;
  for (; PyDict_Next(group_.ptr(), &place, &key, &value); ++i) {
    if (i >= entries_.size() || entries_[i].first != key) return Change::any;
    if (entries_[i].second == value) continue;
    if (!bound_.is_constant || (i != place_.lr && i != place_.momentum)) return Change::any;
    found = Change::values;
  }
  return i == entries_.size() ? found : Change::any;
}

// Remembers the dict as read() found it. A change between reading and writing (by a scale_fn, or by another thread
// while the kernel runs) is found at the next step. A member keeps every value that matters alive, so no other object
// can take its address.
void BoundGroup::remember() {
  const bool scheduled = has_scheduled_momentum();
  if (is_overridden() || settings_.rate != nullptr || !dampening_.object || !weight_decay_.object ||
      !(scheduled || momentum_.object))
    return;
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
  version_ = group_.version();
}

void BoundGroup::forget() {
  entries_.clear();
  version_ = 0;
}

void BoundGroup::refresh(Setting& setting, PyObject* key) const {
  const py::object object = reader().item(key);
  if (object.is(setting.object)) return;
  setting.value = reader().number(key, object.ptr());
  // Only immutable numbers may be recognised by identity later; a tensor can change in place.
  const bool immutable =
      PyFloat_CheckExact(object.ptr()) || PyLong_CheckExact(object.ptr()) || PyBool_Check(object.ptr());
  setting.object = immutable ? object : py::object();
}

// Reads the position. After the last possible update it is kLastStep + 1, from which no step can be made.
void BoundGroup::read_position() {
  const py::object object = reader().item(keys().applied_steps);
  if (object.is(step_object_)) return;
  const unsigned long long step = PyLong_Check(object.ptr()) ? PyLong_AsUnsignedLongLong(object.ptr()) : 0;
  if (!PyLong_Check(object.ptr()) || PyErr_Occurred() || step > kLastStep + 1) {
    PyErr_Clear();
    refuse_position(object.ptr());
  }
  const bool moved = !step_object_ || step != progress_.step;
  position_version_ = fresh_number();
  const Value value = moved ? bound_.value(step, scale_fns_) : scheduled_value();
  progress_.step = step;
  clr::prepare_next(settings_, progress_, value);
  step_object_ = object;
}

void BoundGroup::refuse_position(PyObject* object) const {
  throw py::value_error(reader().name_value(keys().applied_steps, object) + " must be an int from 0 to 2**63 - 2");
}

// Reads the value that stands in the group. Returns true if it differs from the schedule's value.
bool BoundGroup::read_scheduled(PyObject* key, const py::object& written, double scheduled, double& value) const {
  const py::object object = reader().item(key);
  value = scheduled;
  if (written && object.is(written)) return false;
  value = reader().number(key, object.ptr());
  return !same_bits(value, scheduled);
}

// Reads a value of a constant schedule: the value that stands in the group is the schedule's. `known`: the object that
// has been read already.
void BoundGroup::read_constant(PyObject* key, py::object& known, double& value) const {
  const py::object object = reader().item(key);
  if (known && object.is(known)) return;
  value = reader().number(key, object.ptr());
  known = PyFloat_CheckExact(object.ptr()) ? object : py::object();  // a tensor can change in place
}

// Reads lr and, if the schedule has one, momentum of this update.
void BoundGroup::read_values() {
  const py::object rate = reader().item(keys().lr);
  const bool is_ours = written_.lr && rate.is(written_.lr);
  const Value scheduled = scheduled_value();
  const RateOnDevice on_device =
      PyFloat_CheckExact(rate.ptr()) ? RateOnDevice{} : rate_on_device(rate, reader().item(keys().params));
  const bool stays = on_device.at != nullptr;
  settings_.rate = on_device.at;
  settings_.rate_is_double = on_device.is_double;
  settings_.override_number = progress_.last_override;
  lr_overridden_ = false;
  if (bound_.is_constant) {
    if (!stays) read_constant(keys().lr, written_.lr, settings_.lr_override);
    settings_.momentum_override = has_momentum(scheduled) ? settings_.momentum_override : scheduled.momentum;
    if (has_momentum(scheduled)) read_constant(keys().momentum, written_.momentum, settings_.momentum_override);
  } else {
    Value standing = scheduled;
    lr_overridden_ = !stays && read_scheduled(keys().lr, written_.lr, scheduled_lr(), standing.lr);
    bool overridden = lr_overridden_;
    if (has_momentum(scheduled)) {
      overridden |= read_scheduled(keys().momentum, written_.momentum, scheduled.momentum, standing.momentum);
    }
    if (overridden || stays) {
      settings_.lr_override = standing.lr;
      settings_.momentum_override = standing.momentum;
      settings_.override_number = stays ? kStandingOverride : fresh_number();
    }
  }
  foreign_zero_ = !is_ours && !stays && next_value(settings_, progress_).lr == 0.0;
}

BoundGroup::Standing BoundGroup::standing() {
  read_position();
  const Value scheduled = scheduled_value();
  double lr = 0.0, momentum = 0.0;
  bool overridden = read_scheduled(keys().lr, bound_.is_constant ? py::object() : written_.lr, scheduled_lr(), lr);
  const bool has = has_momentum(scheduled);
  if (has) {
    const py::object written = bound_.is_constant ? py::object() : written_.momentum;
    overridden |= read_scheduled(keys().momentum, written, scheduled.momentum, momentum);
  }
  const py::object standing_lr = reader().item(keys().lr);
  const bool is_tensor = TorchReader::get().is_tensor(standing_lr.ptr());
  if (overridden)
    return {true, is_tensor ? py::object(py::float_(lr)) : standing_lr,
            has ? reader().item(keys().momentum) : py::object()};
  return {false, py::float_(scheduled_lr()), has ? py::object(py::float_(scheduled.momentum)) : py::object()};
}

// Reads everything that the schedule does not give.
void BoundGroup::read_settings() {
  refresh(dampening_, keys().dampening);
  refresh(weight_decay_, keys().weight_decay);
  settings_.nesterov = reader().flag(keys().nesterov);
  settings_.maximize = reader().flag(keys().maximize);
  settings_.dampening = dampening_.value;
  settings_.weight_decay = weight_decay_.value;
  read_momentum();
  if (!std::isfinite(settings_.dampening)) position().refuse("dampening", settings_.dampening, "finite");
  if (!is_valid_lr(settings_.weight_decay)) {
    position().refuse("weight_decay", settings_.weight_decay, "finite and not negative");
  }
  require_nesterov();
  const GroupProgress before = progress_;
  progress_.skipped = reader().count(keys().skipped_steps, INT64_MAX, "an int from 0 on");
  options_ = read_options(reader(), settings_, progress_);
  has_options_ = clr::has_options(options_, settings_);
  next_n_averaged_ = next_n_updates_ = py::object();
  clr::prepare_next(settings_, progress_, scheduled_value());
  if (before.skipped != progress_.skipped || before.n_averaged != progress_.n_averaged ||
      before.n_updates != progress_.n_updates) {
    position_version_ = fresh_number();
  }
}

// Reads the momentum of a group whose schedule has none.
void BoundGroup::read_momentum() {
  if (has_scheduled_momentum()) return;
  refresh(momentum_, keys().momentum);
  settings_.momentum = momentum_.value;
  position().require_momentum(settings_.momentum);
}

void BoundGroup::require_nesterov() const {
  if (!settings_.nesterov) return;
  if (settings_.dampening != 0.0) position().refuse("dampening", settings_.dampening, "0 with nesterov=True");
  if (!keeps_buffers()) {
    position().refuse("momentum", next_value(settings_, progress_).momentum, "above 0 with nesterov=True");
  }
}

// Throws ValueError if a parameter cannot be kept as the settings say. Objects that are no tensors, and tensors of
// unknown dtypes, are skipped: BoundParameter::read() refuses them.
void BoundGroup::require_legal_parameters() const {
  const py::object parameters = reader().item(keys().params);
  if (!has_options_ || !PyList_Check(parameters.ptr())) return;
  const TorchReader& torch = TorchReader::get();
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(parameters.ptr()); ++i) {
    PyObject* const parameter = PyList_GET_ITEM(parameters.ptr(), i);
    const std::optional<DType> dtype = torch.is_tensor(parameter) ? torch.dtype(parameter) : std::nullopt;
    if (dtype) options_.require_legal(*dtype, index_, static_cast<std::size_t>(i));
  }
}

void BoundGroup::read() {
  if (is_unchanged()) {
    settings_.override_number = progress_.last_override;
    lr_overridden_ = foreign_zero_ = false;
  } else if (change_ == Change::values) {
    read_new_values();
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
  if (progress_.step > kLastStep) refuse_position(step_object_.ptr());
  if (!is_unchanged() || bound_.may_leave_bounds || settings_.lr_scale > 1.0) require_valid_values();
  if (change_ == Change::any) remember();
}

// Reads lr and momentum of a constant schedule, where nothing else in the dict has changed: rates are written by hand,
// or by a scheduler of torch, before every step.
void BoundGroup::read_new_values() {
  read_values();
  read_momentum();
  require_nesterov();
  const py::object& momentum = has_scheduled_momentum() ? written_.momentum : momentum_.object;
  if (settings_.rate != nullptr || !written_.lr || !momentum) return forget();
  entries_[place_.lr].second = written_.lr.ptr();
  entries_[place_.momentum].second = momentum.ptr();
  version_ = group_.version();
}

void BoundGroup::require_valid_values() const {
  Value value = next_value(settings_, progress_);
  // A momentum of NaN that is set by hand does not mean that there is no momentum.
  const bool takes_overrides = bound_.is_constant || is_overridden();
  if (takes_overrides && has_scheduled_momentum()) value.momentum = settings_.momentum_override;
  position().require_lr(value.lr);
  position().require_momentum(value.momentum);
}

void BoundGroup::check_values() {
  read_values();
  require_valid_values();
}

GroupValues BoundGroup::state_values() const {
  GroupValues state = values();
  state.averages = settings_.averaging != Averaging::none;
  return state;
}

void BoundGroup::warn_of_driver() const {
  const std::string message =
      group_label(index_) + "something else has written lr before " + std::to_string(driven_ + 1) +
      " updates in a row, and each time its schedule stood still, at " + position().text() +
      ": leave the other scheduler out (where a framework wants one, give it optimizer.as_scheduler()), or give the "
      "optimizer lr= in place of its own schedule to be driven by it";
  warn_user(message);
}

int BoundGroup::traverse(visitproc visit, void* arg) const {
  Py_VISIT(group_.ptr());
  Py_VISIT(schedule_.ptr());
  Py_VISIT(schedule_item_.ptr());
  Py_VISIT(parameters_.ptr());
  Py_VISIT(scale_fns_.ptr());
  return 0;
}

}  // namespace clr
