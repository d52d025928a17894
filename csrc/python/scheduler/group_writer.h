// Writes the values of schedules to the parameter groups of any torch optimizer.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "python/scheduler/scheduled_values.h"
#include "python/torch/watched_dict.h"

namespace clr {

// A parameter group: where its values come from, and what the last write left in it.
struct GroupTarget {
  std::uint32_t source;
  PyObject* momentum_key;       // null: the group takes no momentum
  std::uint64_t version = 0;    // of the dict: while it stays, the values are plain numbers; 0 says nothing
  PyObject* written = nullptr;  // betas as last written; alive while the version stays
  double lr_scale = 1.0;        // the factor of its rate
  WatchedDict group;            // of the last write()
  py::object betas, lr;         // of the running write(); no lr if it is the schedule's
  bool lr_is_tensor = false, momentum_is_tensor = false;
  bool replaces_floats = false;  // True if write() replaces only floats

  py::handle own_lr_or(py::handle scheduled) const { return lr ? py::handle(lr) : scheduled; }
};

struct TensorWrite {
  py::object tensor, value, before;
};

class GroupWriter {
 public:
  // Takes for each group, in order, a schedule, its scale functions, and the key of the entry that takes its momentum.
  GroupWriter(const std::vector<py::object>& schedules, const std::vector<py::object>& scale_fns,
              const std::vector<std::optional<std::string>>& momentum_keys);

  // Makes last_lr() and last_momentum() return the values of `step`, without writing anything.
  void seek(std::uint64_t step);

  // Writes the values of `step`. Returns false, with nothing done, if there are not as many groups as schedules.
  // Throws, with nothing changed, if a value cannot be written.
  bool write(const py::list& groups, std::uint64_t step);

  py::list last_lr() const;

  py::list last_momentum() const;

  int traverse(visitproc visit, void* arg) const {
    for (const GroupTarget& target : targets_) Py_VISIT(target.group.ptr());
    return values_.traverse(visit, arg);
  }

  void clear();

 private:
  // Throws if a write is already running: a scale_fn, a tensor's method, or the destruction of a replaced object may
  // call the writer.
  class Busy {
   public:
    explicit Busy(GroupWriter& writer) : writer_(writer) {
      if (writer.busy_) throw std::runtime_error("step() was called while a step of the same scheduler is running");
      writer.busy_ = true;
    }
    ~Busy() {
      if (writer_.made_any_) writer_.drop_made();
      writer_.fills_.clear();
      writer_.filled_.clear();
      writer_.busy_ = false;
    }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

   private:
    GroupWriter& writer_;
  };

  // Checks for all groups that the entries that take the values exist and have a type that can take them.
  void read(const py::list& groups, std::uint64_t step);

  void look_at(GroupTarget& target, std::size_t g);

  // Forms the rate of a group from its schedule's.
  void scale(GroupTarget& target, const ScheduleInUse& source, std::uint64_t step, std::size_t g);

  // True if the object is a tensor. Most objects are floats, which need no walk over base classes.
  static bool is_tensor(PyObject* object);

  void read_momentum(GroupTarget& target, const ScheduleInUse& source, std::size_t g);

  // Notes a tensor to be filled. Throws if groups that share the tensor (an lr tensor that the optimizer was given for
  // all groups) need different values.
  void fill_later(PyObject* tensor, const char* name, const py::object& value, std::size_t g);

  // Returns betas with another first number. Returns the betas of the previous group if they are the same.
  static py::object with_first(const py::object& betas, const py::object& first, const py::object& before);

  // Fills the tensors in place. Only this can still fail: the tensors that were filled before are then put back.
  void fill();

  void put(GroupTarget& target);

  // Releases what the running write() has made for groups.
  void drop_made() {
    for (GroupTarget& target : targets_) target.betas = target.lr = py::object();
    made_any_ = false;
  }

  ScheduledValues values_;
  std::vector<GroupTarget> targets_;
  std::vector<TensorWrite> fills_;
  std::unordered_map<const void*, std::pair<py::object, std::size_t>> filled_;  // by memory: the value and its group
  bool made_any_ = false;  // True if the running write() has made an object for some group
  bool busy_ = false;
};

}  // namespace clr
