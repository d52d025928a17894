// One optimizer step: read and check everything, then write.
#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "core/plan.h"
#include "cpu/isa.h"
#include "cpu/step.h"
#include "python/bindings.h"
#include "python/collected.h"
#include "python/dict_version.h"
#include "python/group_binding.h"
#include "python/parameter_binding.h"

namespace clr {

namespace {

using Groups = std::vector<std::unique_ptr<GroupBinding>>;

// The place of the binding of this dict, or the end.
std::size_t find(const Groups& groups, PyObject* group) {
  std::size_t i = 0;
  while (i < groups.size() && (!groups[i] || groups[i]->group() != group)) ++i;
  return i;
}

class Step {
 public:
  // Binds group number `index`. What is known of another group that has had this number is kept until the groups are
  // put in order.
  void bind(std::size_t index, py::dict group, py::object schedule, py::object scale_fns) {
    const Busy busy(*this);
    auto bound = std::make_unique<GroupBinding>(std::move(group), index, std::move(schedule), std::move(scale_fns));
    if (index >= groups_.size()) groups_.resize(index + 1);
    if (groups_[index] && groups_[index]->group() != bound->group()) groups_.push_back(std::move(groups_[index]));
    groups_[index] = std::move(bound);
  }

  // Puts the schedule's lr and momentum into a bound group. Without this what stands there is obeyed.
  void write_schedule(const py::dict& group) {
    const std::size_t i = find(groups_, group.ptr());
    if (i < groups_.size()) groups_[i]->write_schedule();
  }

  bool is_bound(std::size_t index, const py::dict& group) const {
    return index < groups_.size() && groups_[index] && groups_[index]->is_bound_to(group.ptr());
  }

  // Applies one update to everything that has a gradient. False, with nothing done, if some group is not bound.
  bool apply(const py::list& groups, const py::dict& state) {
    const Busy busy(*this);
    if (!read_groups(groups)) {
      reorder(groups);
      if (!read_groups(groups)) return false;
    }
    refresh_state(state);
    if (calls_user_code_) call_user_code();
    read();
    // From here on nothing is refused. The version counters go first: they alone can still fail.
    TorchReader::get().increment_version(active_);
    run();
    write(state);
    return true;
  }

  // Did the last update of this group follow its schedule?
  bool followed_schedule(const py::dict& group) const {
    const std::size_t i = find(groups_, group.ptr());
    return i == groups_.size() || groups_[i]->followed_schedule();
  }

  int traverse(visitproc visit, void* arg) const {
    for (const auto& group : groups_) {
      if (group == nullptr) continue;
      const int stop = group->traverse(visit, arg);
      if (stop != 0) return stop;
    }
    for (const ParameterBinding& parameter : parameters_) {
      const int stop = parameter.traverse(visit, arg);
      if (stop != 0) return stop;
    }
    Py_VISIT(active_.ptr());
    return 0;
  }

  void clear() {
    groups_.clear();
    parameters_.clear();
    known_parameters_.clear();
    known_state_.clear();
    active_ = py::list();
  }

 private:
  // A scale_fn, or another thread while a kernel runs without the GIL, may call back. Also lets go of gradients.
  class Busy {
   public:
    explicit Busy(Step& step) : step_(step) {
      if (step.busy_) throw std::runtime_error("step() was called while a step of the same optimizer is running");
      step.busy_ = true;
    }
    ~Busy() {
      step_.held_.clear();
      step_.busy_ = false;
    }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

   private:
    Step& step_;
  };

  // Reads all groups and the lists of their parameters. False if some group is not bound.
  bool read_groups(const py::list& groups) {
    if (groups.size() != groups_.size()) return false;
    const Scheduled none;
    const Scheduled* before = &none;
    std::size_t position = 0;
    bool same = true;
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
      same = is_known(group.parameters(), g, position) && same;
    }
    if (!same || position != known_parameters_.size()) bind_parameters();
    return true;
  }

  // Warnings and scale_fns come before any tensor is looked at: they may do anything.
  void call_user_code() {
    for (auto& group : groups_) {
      if (group->is_at_end()) group->warn_of_end();
      if (group->calls_back()) group->prepare_next({});
    }
  }

  // Are these the parameters that are bound from `position` on? Moves it to the end of them.
  bool is_known(PyObject* parameters, std::size_t group, std::size_t& position) const {
    bool same = true;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(parameters); ++i, ++position) {
      same = same && position < known_parameters_.size() && known_parameters_[position].first == group &&
             known_parameters_[position].second == PyList_GET_ITEM(parameters, i);
    }
    return same;
  }

  // Brings the bound groups into the order of the list: a group keeps what is known of it wherever it stands.
  void reorder(const py::list& groups) {
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

  // Binds the parameters of all groups anew.
  void bind_parameters() {
    std::vector<ParameterBinding> fresh;
    std::vector<std::pair<std::size_t, PyObject*>> known;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      PyObject* const parameters = groups_[g]->parameters();
      for (Py_ssize_t i = 0; i < PyList_GET_SIZE(parameters); ++i) {
        PyObject* const parameter = PyList_GET_ITEM(parameters, i);
        if (!TorchReader::get().is_tensor(parameter)) {
          throw py::type_error("parameter " + std::to_string(i) + " of group " + std::to_string(g) +
                               ": type=" + Py_TYPE(parameter)->tp_name + " must be a torch.Tensor");
        }
        fresh.emplace_back(py::reinterpret_borrow<py::object>(parameter), static_cast<std::uint32_t>(g),
                           static_cast<std::size_t>(i));
        known.emplace_back(g, parameter);
      }
    }
    parameters_ = std::move(fresh);
    known_parameters_ = std::move(known);
    known_state_.clear();
    state_is_known_ = false;
  }

  // Looks every parameter up in optimizer.state if its entries are not those of the last step. Walking the entries in
  // their order is far cheaper than hashing every tensor.
  void refresh_state(const py::dict& state) {
    const std::uint64_t version = version_of(state.ptr());
    if (state_is_known_ && version != 0 && version == state_version_) return;
    Py_ssize_t place = 0;
    PyObject *key = nullptr, *value = nullptr;
    std::size_t i = 0;
    bool same = state_is_known_;
    while (same && PyDict_Next(state.ptr(), &place, &key, &value)) {
      same = i < known_state_.size() && known_state_[i].first == key && known_state_[i].second == value;
      ++i;
    }
    state_version_ = version;
    if (same && i == known_state_.size()) return;
    state_is_known_ = false;  // until all of it is
    known_state_.clear();
    place = 0;
    while (PyDict_Next(state.ptr(), &place, &key, &value)) known_state_.emplace_back(key, value);
    for (ParameterBinding& parameter : parameters_) {
      PyObject* const entry = PyDict_GetItemWithError(state.ptr(), parameter.parameter().ptr());
      if (entry == nullptr && PyErr_Occurred()) throw py::error_already_set();
      if (entry != nullptr && !PyDict_Check(entry)) throw py::type_error("optimizer.state must hold dicts");
      parameter.bind_state(entry);
    }
    state_is_known_ = true;
  }

  // Reads and checks groups and tensors into the plan.
  void read() {
    plan_.slots.clear();
    plan_.groups.clear();
    plan_.copied.clear();
    new_buffers_ = false;
    for (auto& group : groups_) plan_.groups.push_back(group->values());
    bool moved = moved_;
    moved_ = true;  // until all have been read
    Py_ssize_t active = 0;
    for (ParameterBinding& parameter : parameters_) {
      if (!parameter.read(groups_[parameter.group()]->keeps_buffers(), plan_, held_)) continue;
      moved = moved || parameter.moved();
      new_buffers_ = new_buffers_ || parameter.has_new_buffer();
      moved = list_active(active++, parameter.parameter()) || moved;
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
  bool list_active(Py_ssize_t place, const py::object& parameter) {
    if (place == PyList_GET_SIZE(active_.ptr())) {
      active_.append(parameter);
    } else if (PyList_GET_ITEM(active_.ptr(), place) != parameter.ptr()) {
      PyList_SetItem(active_.ptr(), place, Py_NewRef(parameter.ptr()));
    } else {
      return false;
    }
    return true;
  }

  void run() {
    const CpuKernels& kernels = *selected_isa().kernels;
    if (plan_.in_order && !held_.copies.empty()) return run_one_by_one(kernels);
    bool complete = false;
    {
      const py::gil_scoped_release release;
      complete = run_step(plan_, kernels, cuts_);
    }
    if (!complete)
      throw std::runtime_error("torch's thread pool failed in the middle of a step: weights are undefined");
    for (const DenseCopy& copy : held_.copies) TorchReader::get().copy(copy.parameter, copy.dense);
  }

  // A parameter that is not dense shares memory with another one: each copy is made when its turn has come.
  void run_one_by_one(const CpuKernels& kernels) {
    auto copy = held_.copies.begin();
    for (std::size_t i = 0; i < plan_.slots.size(); ++i) {
      const bool copied = copy != held_.copies.end() && copy->slot == i;
      if (copied) TorchReader::get().copy(copy->dense, copy->parameter);
      run_between(plan_, kernels, {i, 0}, {i + 1, 0});
      if (copied) TorchReader::get().copy(copy->parameter, copy->dense);
      if (copied) ++copy;
    }
  }

  void write(const py::dict& state) {
    if (new_buffers_) {
      for (ParameterBinding& parameter : parameters_) parameter.write(state);
      state_is_known_ = false;
    }
    for (auto& group : groups_) group->write();
  }

  Groups groups_;
  std::vector<ParameterBinding> parameters_;
  std::vector<std::pair<std::size_t, PyObject*>> known_parameters_;  // with their groups; kept alive by parameters_
  std::vector<std::pair<PyObject*, PyObject*>> known_state_;         // kept alive by parameters_, or never looked at
  std::uint64_t state_version_ = 0;
  bool state_is_known_ = false;
  py::list active_;  // the parameters of the last update
  StepPlan plan_;
  std::vector<Cut> cuts_;
  bool moved_ = true;         // has memory moved since overlaps were looked for?
  bool new_buffers_ = false;  // did read() make any?
  bool calls_user_code_ = false;
  Held held_;
  bool busy_ = false;
};

}  // namespace

void bind_step(py::module_& m) {
  // It refers to parameters and to a user's scale_fn, which may refer to the optimizer.
  py::class_<Step>(m, "Step", "A cached plan of the updates of one optimizer.", collected<Step>())
      .def(py::init<>())
      .def("bind", &Step::bind, py::arg("index"), py::arg("group"), py::arg("schedule"), py::arg("scale_fns"),
           "Take group number `index` over and check its settings.")
      .def("write_schedule", &Step::write_schedule, py::arg("group"),
           "Write the schedule's lr and momentum into a bound group.")
      .def("is_bound", &Step::is_bound, py::arg("index"), py::arg("group"),
           "Is this the dict, with the schedule, that was bound as number `index`?")
      .def("apply", &Step::apply, py::arg("groups"), py::arg("state"),
           "Apply one update. False, with nothing done, if a group is not bound.")
      .def("followed_schedule", &Step::followed_schedule, py::arg("group"),
           "Did this group's last update follow its schedule?");
}

}  // namespace clr
