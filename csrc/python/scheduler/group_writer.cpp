#include "python/scheduler/group_writer.h"

#include "python/torch/group_dict.h"
#include "python/torch/group_keys.h"
#include "python/torch/tensor_view.h"

namespace clr {

namespace {

struct TensorMethods {
  PyObject* fill = PyUnicode_InternFromString("fill_");
  PyObject* clone = PyUnicode_InternFromString("clone");
  PyObject* copy = PyUnicode_InternFromString("copy_");
};

const TensorMethods& methods() {
  static const TensorMethods m;
  return m;
}

py::object owned(PyObject* object) { return py::reinterpret_borrow<py::object>(object); }

// Returns the factor of a group's rate, which a group need not have.
double lr_scale_of(PyObject* group, std::size_t g) {
  const py::object object = owned(PyDict_GetItemWithError(group, keys().lr_scale));
  if (!object) {
    if (PyErr_Occurred()) throw py::error_already_set();
    return 1.0;
  }
  const GroupReader reader = {group, g};
  const double scale = reader.number(keys().lr_scale, object.ptr());
  if (!is_valid_lr(scale)) {
    throw py::value_error(reader.name_value(keys().lr_scale, object.ptr()) + " must be finite and not negative");
  }
  return scale;
}

py::object call(const py::object& object, PyObject* method, const py::object& argument) {
  PyObject* const result = PyObject_CallMethodOneArg(object.ptr(), method, argument.ptr());
  if (result == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(result);
}

}  // namespace

GroupWriter::GroupWriter(const std::vector<py::object>& schedules, const std::vector<py::object>& scale_fns,
                         const std::vector<std::optional<std::string>>& momentum_keys) {
  if (scale_fns.size() != schedules.size() || momentum_keys.size() != schedules.size()) {
    throw py::value_error("schedules, scale_fns and momentum_keys must be as many");
  }
  std::unordered_map<PyObject*, std::uint32_t> known;
  for (std::size_t g = 0; g < schedules.size(); ++g) {
    const auto place = known.find(schedules[g].ptr());
    GroupTarget target{};
    target.source = place != known.end() ? place->second : values_.add(schedules[g], scale_fns[g], g);
    known.emplace(schedules[g].ptr(), target.source);
    if (momentum_keys[g]) target.momentum_key = *momentum_keys[g] == "betas" ? keys().betas : keys().momentum;
    targets_.push_back(std::move(target));
  }
}

void GroupWriter::seek(std::uint64_t step) {
  const Busy busy(*this);
  values_.prepare(step, false);
  values_.keep();
}

bool GroupWriter::write(const py::list& groups, std::uint64_t step) {
  const Busy busy(*this);
  if (groups.size() != targets_.size()) return false;
  values_.prepare(step, true);
  read(groups, step);
  if (!fills_.empty()) fill();
  for (GroupTarget& target : targets_) put(target);
  values_.keep();
  return true;
}

py::list GroupWriter::last_lr() const {
  py::list list;
  for (const GroupTarget& target : targets_) list.append(target.lr_scale * values_.last(target.source).lr);
  return list;
}

py::list GroupWriter::last_momentum() const {
  py::list list;
  for (const GroupTarget& target : targets_) {
    const Value& value = values_.last(target.source);
    list.append(has_momentum(value) ? py::object(py::float_(value.momentum)) : py::object(py::none()));
  }
  return list;
}

void GroupWriter::clear() {
  targets_.clear();
  values_.clear();
}

void GroupWriter::read(const py::list& groups, std::uint64_t step) {
  if (groups.size() != targets_.size()) throw py::value_error("param_groups changed size during step()");
  // All groups are taken before any new tuple is made: a new tuple may start the garbage collector, which may run any
  // code.
  for (std::size_t g = 0; g < targets_.size(); ++g) {
    PyObject* const group = PyList_GET_ITEM(groups.ptr(), static_cast<Py_ssize_t>(g));
    if (!PyDict_Check(group)) throw py::type_error(group_label(g) + "must be a dict");
    if (targets_[g].group.ptr() != group) targets_[g].group = WatchedDict(owned(group));
  }
  for (std::size_t g = 0; g < targets_.size(); ++g) {
    GroupTarget& target = targets_[g];
    const ScheduleInUse& source = values_[target.source];
    if (target.version == 0 || target.version != target.group.version()) look_at(target, g);
    scale(target, source, step, g);
    if (target.lr_is_tensor) {
      fill_later(group_item(target.group.ptr(), keys().lr, g), "lr", owned(target.own_lr_or(source.lr).ptr()), g);
    }
    if (source.momentum && target.momentum_key != nullptr) read_momentum(target, source, g);
  }
}

void GroupWriter::look_at(GroupTarget& target, std::size_t g) {
  target.version = 0;
  target.written = nullptr;
  target.lr_scale = lr_scale_of(target.group.ptr(), g);
  PyObject* const lr = group_item(target.group.ptr(), keys().lr, g);
  target.lr_is_tensor = is_tensor(lr);
  target.replaces_floats = PyFloat_CheckExact(lr);
  if (target.momentum_key != keys().momentum) return;
  PyObject* const momentum = group_item(target.group.ptr(), keys().momentum, g);
  target.momentum_is_tensor = is_tensor(momentum);
  target.replaces_floats = target.replaces_floats && PyFloat_CheckExact(momentum);
}

void GroupWriter::scale(GroupTarget& target, const ScheduleInUse& source, std::uint64_t step, std::size_t g) {
  if (target.lr_scale == 1.0) return;
  const double lr = target.lr_scale * PyFloat_AS_DOUBLE(source.lr.ptr());
  NamedPosition{g, "last_epoch", step}.require_lr(lr);
  target.lr = py::float_(lr);
  made_any_ = true;
}

bool GroupWriter::is_tensor(PyObject* object) {
  return !PyFloat_CheckExact(object) && TorchReader::get().is_tensor(object);
}

void GroupWriter::read_momentum(GroupTarget& target, const ScheduleInUse& source, std::size_t g) {
  PyObject* const group = target.group.ptr();
  if (target.momentum_is_tensor) fill_later(group_item(group, keys().momentum, g), "momentum", source.momentum, g);
  if (target.momentum_key != keys().betas) return;
  py::object betas = owned(target.written != nullptr ? target.written : group_item(group, keys().betas, g));
  if (!PyTuple_CheckExact(betas.ptr())) {
    target.replaces_floats = false;
    const bool is_sequence = PyTuple_Check(betas.ptr()) || PyList_Check(betas.ptr());
    if (!is_sequence) {
      throw py::type_error(group_label(g) + "betas=" + py::repr(betas).cast<std::string>() + " must be a tuple");
    }
    betas = py::reinterpret_steal<py::object>(PySequence_Tuple(betas.ptr()));
    if (!betas) throw py::error_already_set();  // an error of the user's own __iter__
  }
  const Py_ssize_t size = PyTuple_GET_SIZE(betas.ptr());
  if (size == 0) throw py::value_error(group_label(g) + "betas=() must hold at least one");
  PyObject* const first = PyTuple_GET_ITEM(betas.ptr(), 0);
  target.replaces_floats = target.replaces_floats && PyFloat_CheckExact(first);
  if (is_tensor(first)) {
    fill_later(first, "betas[0]", source.momentum, g);
    return;
  }
  made_any_ = true;
  target.betas = with_first(betas, source.momentum, g == 0 ? py::object() : targets_[g - 1].betas);
}

void GroupWriter::fill_later(PyObject* tensor, const char* name, const py::object& value, std::size_t g) {
  fills_.push_back({owned(tensor), value, {}});
  DLTensor view;
  const void* const memory = TorchReader::get().read(tensor, view) ? data_of(view) : tensor;
  const auto [first, is_new] = filled_.emplace(memory, std::pair(value, g));
  if (is_new || PyFloat_AS_DOUBLE(first->second.first.ptr()) == PyFloat_AS_DOUBLE(value.ptr())) return;
  throw py::value_error(group_label(g) + name + "=" + py::repr(value).cast<std::string>() +
                        " cannot be put into a tensor that parameter group " + std::to_string(first->second.second) +
                        " holds too, with " + py::repr(first->second.first).cast<std::string>() +
                        ": give each group a tensor of its own");
}

py::object GroupWriter::with_first(const py::object& betas, const py::object& first, const py::object& before) {
  const Py_ssize_t size = PyTuple_GET_SIZE(betas.ptr());
  bool same = before && PyTuple_GET_SIZE(before.ptr()) == size && PyTuple_GET_ITEM(before.ptr(), 0) == first.ptr();
  for (Py_ssize_t i = 1; same && i < size; ++i) {
    same = PyTuple_GET_ITEM(before.ptr(), i) == PyTuple_GET_ITEM(betas.ptr(), i);
  }
  if (same) return before;
  PyObject* const made = PyTuple_New(size);
  if (made == nullptr) throw py::error_already_set();
  for (Py_ssize_t i = 0; i < size; ++i) {
    PyTuple_SET_ITEM(made, i, Py_NewRef(i == 0 ? first.ptr() : PyTuple_GET_ITEM(betas.ptr(), i)));
  }
  return py::reinterpret_steal<py::object>(made);
}

void GroupWriter::fill() {
  for (std::size_t i = 0; i + 1 < fills_.size(); ++i) {
    fills_[i].before =
        py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(fills_[i].tensor.ptr(), methods().clone));
    if (!fills_[i].before) throw py::error_already_set();
  }
  std::size_t done = 0;
  try {
    for (; done < fills_.size(); ++done) call(fills_[done].tensor, methods().fill, fills_[done].value);
  } catch (...) {
    while (done-- > 0) call(fills_[done].tensor, methods().copy, fills_[done].before);
    throw;
  }
}

void GroupWriter::put(GroupTarget& target) {
  const ScheduleInUse& source = values_[target.source];
  PyObject* const group = target.group.ptr();
  // If an object other than a float is replaced, its destruction may run code that changes the dict again.
  std::optional<OwnWrites> writing;
  if (target.replaces_floats) writing.emplace(target.group);
  if (!target.lr_is_tensor) set_group_item(group, keys().lr, target.own_lr_or(source.lr));
  if (source.momentum && target.momentum_key != nullptr) {
    if (target.betas) {
      set_group_item(group, keys().betas, target.betas);
    } else if (target.momentum_key == keys().momentum && !target.momentum_is_tensor) {
      set_group_item(group, keys().momentum, source.momentum);
    }
  }
  writing.reset();
  target.version = target.replaces_floats ? target.group.version() : 0;
  target.written = target.version != 0 ? target.betas.ptr() : nullptr;
}

}  // namespace clr
