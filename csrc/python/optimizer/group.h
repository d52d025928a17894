// A parameter group's dict as a step sees it: numbers read before the update, numbers written after it.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

#include "core/slot.h"
#include "cuda/tables.h"
#include "python/optimizer/group_settings.h"
#include "python/scheduler/bound_schedule.h"
#include "python/torch/group_dict.h"

namespace clr {

// A position in a schedule and the values there, as numbers and as the objects that are written into the group. Groups
// share what they can with the group before them: most have its position, and many its schedule or its momentum.
struct Scheduled {
  const Piece* schedule = nullptr;  // its pieces
  std::uint64_t step = 0;
  Value value{};
  py::object step_object, lr, momentum;  // momentum: null where there is none
};

class GroupBinding {
 public:
  // Takes the position from the group and checks the settings, also against its parameters' dtypes. A schedule's value
  // that cannot be used is not an error until it is to be used.
  // `schedule`: the Python object, of which native values are taken.
  GroupBinding(py::dict group, std::size_t index, py::object schedule);

  // Writes the schedule's lr and momentum of the position into the group. Else what stands there is obeyed.
  void write_schedule();
  // Puts what was last written into the group again.
  void restore();

  PyObject* group() const { return group_.ptr(); }
  const py::object& schedule() const { return schedule_; }
  // True if the group holds the very dict of a schedule that was bound.
  bool holds_bound_schedule() const;
  void set_index(std::size_t index) { index_ = index; }

  // Is this still the dict, with the schedule, that was bound? Also finds out, for read(), if anything in it changed.
  bool is_bound_to(PyObject* group);

  // The numbers of this update. Reads every setting, and the schedule's position if somebody moved it. Throws
  // ValueError or TypeError, with nothing changed, for what no update can use.
  void read();

  // The numbers of this update. `at_cycle_end`: it is the last of a cycle.
  const GroupValues& values(bool at_cycle_end) {
    tail_.prepare(at_cycle_end, values_);
    return values_;
  }
  // The numbers of a step that only makes state.
  const GroupValues& state_values() {
    tail_.prepare_state(values_);
    return values_;
  }
  const GroupTail& tail() const { return tail_; }

  // The group's list of parameters at the last read().
  PyObject* parameters() const { return parameters_.ptr(); }

  // True if lr or momentum of this update is set by hand: it does not follow the schedule. Never so where the schedule
  // is constant: what stands in the group is then its value, and every update counts.
  bool is_by_hand() const { return by_hand_; }
  bool is_constant() const { return bound_.is_constant; }

  // True if lr is a zero that somebody else has written, as torch.distributed does to ask for state.
  bool has_foreign_zero() const { return foreign_zero_; }

  // True if this update is the `count`-th in a row whose lr somebody else has written while the schedule stands still.
  bool is_driven(std::uint32_t count) const { return lr_by_hand_ && driven_ + 1 >= count; }
  void warn_of_driver() const;
  // Counts this update for is_driven().
  void count_driver() { driven_ = lr_by_hand_ ? driven_ + 1 : 0; }

  // What a checkpoint says of lr and momentum: what stands there if that is other than the schedule's values, else
  // these. `momentum`: null where the schedule has none.
  struct Standing {
    bool is_overridden;
    py::object lr, momentum;
  };
  Standing standing();

  // Throws what read() would about the lr and momentum that stand in the group.
  void check_values();

  Value values_by_hand() const { return {values_.lr, values_.momentum}; }

  // Can momentum ever play a part in this group, going by the last read()?
  bool keeps_buffers() const { return bound_.may_have_momentum || values_.momentum != 0.0; }

  // Does prepare_next() call a user's function?
  bool calls_back() const { return bound_.calls_back; }

  // Is this update the first that lies past the end of the schedule? Then users are warned.
  bool is_at_end() const { return step_ == bound_.end && !by_hand_; }
  void warn_of_end() const;

  // True if this update is the last of a cycle of the schedule, and follows it.
  bool ends_cycle() const { return !by_hand_ && bound_.cycle_position(step_ + 1).at_end; }

  // Computes what write() will write: the position and values of the next update. May throw what scale_fn throws.
  void prepare_next(const Scheduled& before);
  const Scheduled& next() const { return next_; }

  // Writes them into the group. Runs no Python: `replaced` takes what stood there.
  void write(std::vector<py::object>& replaced);

  // Counts an update that was skipped, after prepare_skipped(). `advance`: the schedule goes on all the same.
  void prepare_skipped();
  void write_skipped(bool advance, std::vector<py::object>& replaced);

  // A number that no other binding has and that changes when somebody else than a step moves the group: sets its
  // position or a counter.
  std::uint64_t origin() const { return origin_; }
  // Another number for each binding.
  std::uint64_t id() const { return id_; }

  // What a device is told of the group, going by the last read(); but for what is set by hand.
  GroupSettings device_settings() const;
  // Where the group stands; but for orders.
  GroupProgress device_progress() const;
  // Writes into the group what a device has counted. `by_hand`: the values of an update that a device has yet to carry
  // out with them, or null. What was set in the group since the last step stays.
  void take(const GroupProgress& counted, const Value* by_hand);

  // Did the last step follow the schedule? Not with lr or momentum set by hand, nor if it was skipped.
  bool followed_schedule() const { return followed_; }

  int traverse(visitproc visit, void* arg) const;

 private:
  // A number in the group and the object it was read from: while the same object stands there, nothing is parsed.
  struct Setting {
    py::object object;
    double value = 0.0;
  };

  GroupReader reader() const { return {group_.ptr(), index_}; }
  bool is_as_remembered() const;
  // The schedule's values at the position, as objects to write.
  Scheduled scheduled() const;
  void remember();
  void forget();
  void refresh(Setting& setting, PyObject* key) const;
  [[noreturn]] void refuse_position(PyObject* object) const;
  void read_position();
  bool read_scheduled(PyObject* key, const py::object& written, double scheduled, double& value) const;
  void read_constant(PyObject* key, py::object& known, double& value) const;
  void read_values();
  void read_settings();
  void require_legal_parameters() const;
  void require_valid_values() const;
  void require(bool ok, const char* name, double value, const char* must) const;
  static py::object shared(double value, double a, const py::object& object_a, double b, const py::object& object_b);
  void write_items();
  void write_next(std::vector<py::object>& replaced);

  // What every step touches comes first: a step over many groups waits for memory, not for arithmetic.
  py::dict group_;
  // What tells that the dict is as the last read() and write() left it: its version, or its entries in their order,
  // which are far cheaper to walk over than all keys to look up. 0 and empty say nothing (a tensor can change in
  // place).
  std::uint64_t version_ = 0;
  std::vector<std::pair<PyObject*, PyObject*>> entries_;
  struct {
    std::uint32_t step = 0, lr = 0, momentum = 0;
  } place_;  // of these keys in entries_
  py::object parameters_;
  bool unchanged_ = false;
  bool by_hand_ = false, lr_by_hand_ = false, foreign_zero_ = false;
  bool followed_ = true;
  std::uint32_t driven_ = 0;  // updates in a row so far, with lr set by hand
  ScheduleView bound_;        // of bound_object_
  Scheduled written_;         // by us, last: what stands in the group unless somebody changed it
  Scheduled next_;
  std::uint64_t step_ = 0;  // of this update; with the next two other than in written_ if somebody moved it
  py::object step_object_;
  Value current_{};  // the schedule's value there
  GroupValues values_{};
  GroupTail tail_;
  std::uint64_t skipped_ = 0;
  std::uint64_t id_, origin_;

  std::size_t index_;
  py::object schedule_, schedule_item_;  // Python's object; what stood in the group when it was bound
  py::object bound_object_, scale_fns_;
  py::object next_skipped_;
  Setting momentum_, dampening_, weight_decay_;  // momentum_: where the schedule has none
};

}  // namespace clr
