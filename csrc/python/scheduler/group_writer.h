// Writes the values of schedules to the parameter groups of any torch optimizer.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "python/scheduler/scheduled_values.h"

namespace clr {

// A parameter group: where its values come from, and what the last write left in it.
struct GroupTarget {
  std::uint32_t source;
  PyObject* momentum_key;       // null: nothing takes a momentum
  std::uint64_t version = 0;    // of the dict, while which stands its values are plain numbers; 0 says nothing
  PyObject* written = nullptr;  // betas as written, alive while the version stands
  py::object group, betas;      // of the write that is running
  bool lr_is_tensor = false, momentum_is_tensor = false;
  bool replaces_floats = false;  // and nothing else
};

struct TensorWrite {
  py::object tensor, value, before;
};

class GroupWriter {
 public:
  // A schedule, its scale functions and the key of what takes its momentum for each group, in order.
  GroupWriter(const std::vector<py::object>& schedules, const std::vector<py::object>& scale_fns,
              const std::vector<std::optional<std::string>>& momentum_keys);

  // Takes `step` as the one whose values last_lr() and last_momentum() tell, without writing anything.
  void seek(std::uint64_t step);

  // Writes the values of `step`. False, with nothing done, if there are not as many groups as schedules. What cannot be
  // written raises and has changed nothing.
  bool write(const py::list& groups, std::uint64_t step);

  py::list last_lr() const;

  py::list last_momentum() const;

  int traverse(visitproc visit, void* arg) const { return values_.traverse(visit, arg); }

  void clear();

 private:
  // A scale_fn, a tensor's method or the end of an object that stood in a group may call back. Also lets go of groups.
  class Busy {
   public:
    explicit Busy(GroupWriter& writer) : writer_(writer) {
      if (writer.busy_) throw std::runtime_error("step() was called while a step of the same scheduler is running");
      writer.busy_ = true;
    }
    ~Busy() {
      for (GroupTarget& target : writer_.targets_) {
        target.group = py::object();
        target.betas = py::object();
      }
      writer_.fills_.clear();
      writer_.filled_.clear();
      writer_.busy_ = false;
    }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

   private:
    GroupWriter& writer_;
  };

  // Looks at all groups: what takes the values is there and of a kind that can.
  void read(const py::list& groups);

  void look_at(GroupTarget& target, std::size_t g);

  // Most are floats, which need no walk over base classes.
  static bool is_tensor(PyObject* object);

  void read_momentum(GroupTarget& target, const ScheduleInUse& source, std::size_t g);

  // A tensor that groups share, as those that the optimizer was given for all of them, cannot hold two values.
  void fill_later(PyObject* tensor, const char* name, const py::object& value, std::size_t g);

  // betas with another first number; the group before's where that is the same.
  static py::object with_first(const py::object& betas, const py::object& first, const py::object& before);

  // Tensors in place. They alone can still fail: those filled before are then put back.
  void fill();

  void put(GroupTarget& target);

  ScheduledValues values_;
  std::vector<GroupTarget> targets_;
  std::vector<TensorWrite> fills_;
  std::unordered_map<const void*, std::pair<py::object, std::size_t>> filled_;  // by memory: the value, and whose
  bool busy_ = false;
};

}  // namespace clr
