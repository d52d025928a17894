#include "python/group_binding.h"

#include <cmath>
#include <utility>

namespace clr {

namespace {

// Keys are interned once: a dict finds them by identity.
struct Keys {
  PyObject* schedule = PyUnicode_InternFromString("schedule");
  PyObject* applied_steps = PyUnicode_InternFromString("applied_steps");
  PyObject* lr = PyUnicode_InternFromString("lr");
  PyObject* momentum = PyUnicode_InternFromString("momentum");
  PyObject* dampening = PyUnicode_InternFromString("dampening");
  PyObject* weight_decay = PyUnicode_InternFromString("weight_decay");
  PyObject* nesterov = PyUnicode_InternFromString("nesterov");
  PyObject* maximize = PyUnicode_InternFromString("maximize");
};

const Keys& keys() {
  static const Keys k;
  return k;
}

void set_item(PyObject* dict, PyObject* key, const py::object& value) {
  if (PyDict_SetItem(dict, key, value.ptr()) != 0) throw py::error_already_set();
}

// Interned or not: keys that come out of a checkpoint need not be.
bool same_key(PyObject* a, PyObject* b) { return a == b || (PyUnicode_Check(a) && PyUnicode_Compare(a, b) == 0); }

bool same_bits(double a, double b) { return double_to_bits(a) == double_to_bits(b); }

}  // namespace

GroupBinding::GroupBinding(py::dict group, std::size_t index, py::object policy, py::object scale_fn)
    : group_(std::move(group)),
      index_(index),
      policy_object_(std::move(policy)),
      policy_(&policy_object_.cast<const BoundPolicy&>()),
      scale_fn_(std::move(scale_fn)) {
  schedule_ = py::reinterpret_borrow<py::object>(item(keys().schedule));
  lr_.key = keys().lr;
  momentum_.key = keys().momentum;
  dampening_.key = keys().dampening;
  weight_decay_.key = keys().weight_decay;
  nesterov_.key = keys().nesterov;
  maximize_.key = keys().maximize;
  read_position();
  write_scheduled(lr_, current_.lr, py::float_(current_.lr));
  if (policy_->has_momentum()) write_scheduled(momentum_, current_.momentum, py::float_(current_.momentum));
  read_settings();
}

bool GroupBinding::is_bound_to(PyObject* group) {
  if (group != group_.ptr()) return false;
  unchanged_ = is_as_remembered();
  return unchanged_ || PyDict_GetItemWithError(group, keys().schedule) == schedule_.ptr();
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

// Every value that matters is kept alive by a member: no other object can take its address.
void GroupBinding::remember() {
  if (unchanged_) {
    entries_[step_place_].second = step_object_.ptr();
    entries_[lr_.place].second = lr_.object.ptr();
    if (policy_->has_momentum()) entries_[momentum_.place].second = momentum_.object.ptr();
    return;
  }
  entries_.clear();
  for (const Setting* setting : {&momentum_, &dampening_, &weight_decay_}) {
    if (!setting->object) return;
  }
  Py_ssize_t place = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (PyDict_Next(group_.ptr(), &place, &key, &value)) {
    if (same_key(key, keys().applied_steps)) step_place_ = entries_.size();
    if (same_key(key, keys().lr)) lr_.place = entries_.size();
    if (same_key(key, keys().momentum)) momentum_.place = entries_.size();
    entries_.emplace_back(key, value);
  }
}

PyObject* GroupBinding::item(PyObject* key) const {
  PyObject* const object = PyDict_GetItemWithError(group_.ptr(), key);
  if (object != nullptr) return object;
  if (PyErr_Occurred()) throw py::error_already_set();
  throw py::value_error("parameter group " + std::to_string(index_) + " has lost its key '" +
                        py::str(key).cast<std::string>() + "'");
}

std::string GroupBinding::name_value(PyObject* key, PyObject* object) const {
  return "parameter group " + std::to_string(index_) + ": " + py::str(key).cast<std::string>() + "=" +
         py::repr(object).cast<std::string>();
}

double GroupBinding::number(PyObject* key, PyObject* object) const {
  const double value = PyUnicode_Check(object) ? -1.0 : PyFloat_AsDouble(object);
  if (PyUnicode_Check(object) || PyErr_Occurred()) {
    PyErr_Clear();
    throw py::type_error(name_value(key, object) + " must be a number");
  }
  return value;
}

void GroupBinding::refresh(Setting& setting) const {
  PyObject* const object = item(setting.key);
  if (object == setting.object.ptr()) return;
  setting.value = number(setting.key, object);
  // Only immutable numbers may be recognised by identity later; a tensor can change in place.
  const bool immutable = PyFloat_CheckExact(object) || PyLong_Check(object);
  setting.object = immutable ? py::reinterpret_borrow<py::object>(object) : py::object();
}

void GroupBinding::read_position() {
  PyObject* const object = item(keys().applied_steps);
  if (object == step_object_.ptr()) return;
  const unsigned long long step = PyLong_Check(object) ? PyLong_AsUnsignedLongLong(object) : 0;
  if (!PyLong_Check(object) || PyErr_Occurred() || step > INT64_MAX - 1) {
    PyErr_Clear();
    throw py::value_error(name_value(keys().applied_steps, object) + " must be an int from 0 to 2**63 - 2");
  }
  if (!step_object_ || step != step_) current_ = policy_->value(step, scale_fn_);
  step_ = step;
  step_object_ = py::reinterpret_borrow<py::object>(object);
}

// lr and momentum: obeys what stands in the group. Returns whether that was set by hand. A zero that we did not write
// is by hand even where the schedule says zero too: it is how torch.distributed asks for a step that moves no weight.
bool GroupBinding::read_scheduled(const Setting& written, double scheduled, double& value) const {
  PyObject* const object = item(written.key);
  value = scheduled;
  if (object == written.object.ptr()) return false;
  const double found = number(written.key, object);
  if (same_bits(found, scheduled) && found != 0.0) return false;
  value = found;
  return true;
}

// Everything that the schedule does not give.
void GroupBinding::read_settings() {
  refresh(dampening_);
  refresh(weight_decay_);
  for (Setting* const flag : {&nesterov_, &maximize_}) {
    PyObject* const object = item(flag->key);
    if (!PyBool_Check(object)) throw py::type_error(name_value(flag->key, object) + " must be True or False");
    refresh(*flag);
  }
  if (!policy_->has_momentum()) {
    refresh(momentum_);
    values_.momentum = momentum_.value;
    require(is_valid_momentum(values_.momentum), "momentum", values_.momentum, "between 0 and 1");
  }
  values_.dampening = dampening_.value;
  values_.weight_decay = weight_decay_.value;
  values_.nesterov = nesterov_.value != 0.0;
  values_.maximize = maximize_.value != 0.0;
  require(std::isfinite(values_.dampening), "dampening", values_.dampening, "finite");
  require(is_valid_lr(values_.weight_decay), "weight_decay", values_.weight_decay, "finite and not negative");
  if (values_.nesterov) {
    require(values_.dampening == 0.0, "dampening", values_.dampening, "0 with nesterov=True");
    require(keeps_buffers(), "momentum", values_.momentum, "above 0 with nesterov=True");
  }
}

void GroupBinding::require(bool ok, const char* name, double value, const char* must) const {
  if (ok) return;
  throw py::value_error("parameter group " + std::to_string(index_) + ": " + name + "=" +
                        py::repr(py::float_(value)).cast<std::string>() + " at applied_steps=" + std::to_string(step_) +
                        " must be " + must);
}

void GroupBinding::read() {
  if (unchanged_) {
    values_.lr = current_.lr;
    if (policy_->has_momentum()) values_.momentum = current_.momentum;
    by_hand_ = false;
  } else {
    entries_
        .clear();  // should this step be refused, what is read here is not what the dict held when it was remembered
    read_position();
    const bool lr_by_hand = read_scheduled(lr_, current_.lr, values_.lr);
    const bool momentum_by_hand =
        policy_->has_momentum() && read_scheduled(momentum_, current_.momentum, values_.momentum);
    by_hand_ = lr_by_hand || momentum_by_hand;
    read_settings();
  }
  require(is_valid_lr(values_.lr), "lr", values_.lr, "finite and not negative");
  require(is_valid_momentum(values_.momentum), "momentum", values_.momentum, "between 0 and 1");
}

// The object that was written for this value, or a new one: who puts the old object back must find it recognised.
py::object GroupBinding::float_object(double value, const Setting& written) {
  return written.object && same_bits(value, written.value) ? written.object : py::float_(value);
}

void GroupBinding::prepare_next(const NextValues& before) {
  const std::uint64_t step = by_hand_ ? step_ : step_ + 1;
  if (!by_hand_ && before.policy == policy_ && before.step == step && policy_->policy.mode != Mode::custom) {
    next_ = before;
    return;
  }
  next_.policy = policy_;
  next_.step = step;
  next_.value = by_hand_ ? current_ : policy_->value(step, scale_fn_);
  next_.step_object = by_hand_ ? step_object_ : py::int_(step);
  next_.lr = float_object(next_.value.lr, lr_);
  next_.momentum = float_object(next_.value.momentum, momentum_);
}

void GroupBinding::write_scheduled(Setting& setting, double value, py::object object) {
  set_item(group_.ptr(), setting.key, object);
  setting.object = std::move(object);
  setting.value = value;
}

void GroupBinding::write() {
  set_item(group_.ptr(), keys().applied_steps, next_.step_object);
  step_ = next_.step;
  step_object_ = next_.step_object;
  current_ = next_.value;
  write_scheduled(lr_, current_.lr, next_.lr);
  if (policy_->has_momentum()) write_scheduled(momentum_, current_.momentum, next_.momentum);
  remember();
}

int GroupBinding::traverse(visitproc visit, void* arg) const {
  Py_VISIT(group_.ptr());
  Py_VISIT(schedule_.ptr());
  Py_VISIT(scale_fn_.ptr());
  return 0;
}

}  // namespace clr
