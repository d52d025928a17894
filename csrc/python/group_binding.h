// A parameter group's dict as a step sees it: numbers read before the update, numbers written after it.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

#include "core/slot.h"
#include "python/policy.h"

namespace clr {

// The next values of one policy at one step, as numbers and as the objects to be written. Groups that share a schedule
// and a position, as most do, share them.
struct NextValues {
  const BoundPolicy* policy = nullptr;
  std::uint64_t step = 0;
  Value value{};
  py::object step_object, lr, momentum;
};

class GroupBinding {
 public:
  // Takes the position from the group, writes the schedule's lr and momentum of it there, and checks the settings. A
  // schedule's value that cannot be used is not an error until it is to be used.
  GroupBinding(py::dict group, std::size_t index, py::object policy, py::object scale_fn);

  PyObject* group() const { return group_.ptr(); }
  void set_index(std::size_t index) { index_ = index; }

  // Is this still the dict, with the schedule, that was bound? Also finds out, for read(), if anything in it changed.
  bool is_bound_to(PyObject* group);

  // The numbers of this update. Reads every setting, and the schedule's position if somebody moved it. Throws
  // ValueError or TypeError, with nothing changed, for what no update can use.
  void read();
  const GroupValues& values() const { return values_; }

  // Can momentum ever play a part in this group, going by the last read()?
  bool keeps_buffers() const { return policy_->may_have_momentum() || values_.momentum != 0.0; }

  // Computes what write() will write: the position and values of the next update, or takes them from the group before.
  // May call scale_fn and throw.
  void prepare_next(const NextValues& before);
  const NextValues& next() const { return next_; }

  // Writes them into the group.
  void write();

  // Did the last written update follow the schedule, or lr or momentum set by hand?
  bool followed_schedule() const { return !by_hand_; }

  int traverse(visitproc visit, void* arg) const;

 private:
  // A number in the group and the object it was read from: while the same object stands there, nothing is parsed.
  struct Setting {
    PyObject* key;
    py::object object;
    double value = 0.0;
    std::size_t place = 0;  // in entries_
  };

  bool is_as_remembered() const;
  void remember();
  PyObject* item(PyObject* key) const;
  std::string name_value(PyObject* key, PyObject* object) const;
  double number(PyObject* key, PyObject* object) const;
  void refresh(Setting& setting) const;
  void read_position();
  bool read_scheduled(const Setting& written, double scheduled, double& value) const;
  void read_settings();
  void require(bool ok, const char* name, double value, const char* must) const;
  static py::object float_object(double value, const Setting& written);
  void write_scheduled(Setting& setting, double value, py::object object);

  py::dict group_;
  std::size_t index_;
  py::object schedule_;
  py::object policy_object_;
  const BoundPolicy* policy_;  // in policy_object_
  py::object scale_fn_;

  std::uint64_t step_ = 0;
  py::object step_object_;
  std::size_t step_place_ = 0;
  Value current_{};  // the schedule's value at step_
  Setting lr_, momentum_, dampening_, weight_decay_, nesterov_, maximize_;
  GroupValues values_{};
  bool by_hand_ = false;

  // The dict's entries after the last write(), in their order; empty if they say nothing (a tensor can change in
  // place). Walking over them is far cheaper than looking every key up.
  std::vector<std::pair<PyObject*, PyObject*>> entries_;
  bool unchanged_ = false;

  NextValues next_;
};

}  // namespace clr
