// A parameter group's dict as a step sees it: the step reads numbers before the update and writes numbers after it.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <utility>
#include <vector>

#include "core/portable.h"
#include "core/progress.h"
#include "python/optimizer/group_options.h"
#include "python/scheduler/bound_schedule.h"
#include "python/torch/group_dict.h"
#include "python/torch/watched_dict.h"

namespace clr {

// A position in a schedule and the values there, as numbers and as the objects that are written into the group. Groups
// share objects with the group before them: most have the same position, and many have the same schedule or momentum.
struct Scheduled {
  const Piece* schedule = nullptr;  // its pieces
  std::uint64_t step = 0;
  Value value{};                         // lr before it is scaled
  double lr_scale = 1.0;                 // of the group
  py::object step_object, lr, momentum;  // momentum: null if the schedule has none

  double scaled_lr() const { return lr_scale * value.lr; }
};

class BoundGroup {
 public:
  // Takes the position from the group and checks the settings, also against the dtypes of its parameters. A schedule's
  // value that is out of bounds is an error only when a step uses it. `schedule`: the Python object that the native
  // schedule is taken from.
  BoundGroup(py::dict group, std::size_t index, py::object schedule);

  // Writes the schedule's lr and momentum of the position into the group. Without this call, the values in the group
  // are used.
  void write_schedule();
  // Writes the lr and momentum that were last written into the group again.
  void restore();

  // Asks for the memory of the dict and of the list of parameters, which the other two functions then read.
  CLR_INLINE_MEMBER void prefetch_dict() const {
    prefetch_line(group_.ptr());
    prefetch_line(parameters_.ptr());
  }
  CLR_INLINE_MEMBER void prefetch_parameters() const {
    if (parameters_) prefetch_line(PySequence_Fast_ITEMS(parameters_.ptr()));
  }
  CLR_INLINE_MEMBER void prefetch_entries() const { clr::prefetch_entries(group_.ptr()); }

  PyObject* group() const { return group_.ptr(); }
  const py::object& schedule() const { return schedule_; }
  // True if the group holds the very dict of a schedule that was bound.
  bool holds_bound_schedule() const;
  void set_index(std::size_t index) { index_ = index; }

  // True if `group` is still the dict that was bound and holds the schedule that was bound. Also finds out, for read(),
  // if anything in the dict has changed.
  bool is_bound_to(PyObject* group);

  // Reads every setting, and the schedule's position if somebody moved it. Throws ValueError or TypeError, with nothing
  // changed, for a value that no update can use.
  void read();

  // As of the last read().
  const GroupSettings& settings() const { return settings_; }
  const GroupProgress& progress() const { return progress_; }
  const GroupOptions& options() const { return options_; }
  bool has_options() const { return has_options_; }
  PyObject* parameters() const { return parameters_.ptr(); }

  // The numbers of this update.
  GroupValues values() const { return values_of(settings_, progress_, ends_cycle_); }
  // The numbers of a step that only makes state.
  GroupValues state_values() const;

  // True if lr or momentum of this update is set by hand, so that the update does not follow the schedule. Always false
  // with a constant schedule: the value in the group is then the schedule's value, and every update advances the
  // schedule.
  bool is_overridden() const { return clr::is_overridden(settings_, progress_); }

  // True if lr is a zero that somebody else has written, as torch.distributed does to ask for state.
  bool has_foreign_zero() const { return foreign_zero_; }

  // True if this update is the `count`-th in a row whose lr somebody else has written while the schedule stands still.
  bool is_driven(std::uint32_t count) const { return lr_overridden_ && driven_ + 1 >= count; }
  void warn_of_driver() const;
  // Counts this update for is_driven().
  void count_driver() { driven_ = lr_overridden_ ? driven_ + 1 : 0; }

  // The lr and momentum that a checkpoint saves: the values in the group if they differ from the schedule's, else the
  // schedule's. `momentum`: null if the schedule has none.
  struct Standing {
    bool is_overridden;
    py::object lr, momentum;
  };
  Standing standing();

  // Throws the errors that read() would throw about the lr and momentum in the group.
  void check_values();

  // True if some update of this group can have a momentum other than 0, according to the last read().
  bool keeps_buffers() const { return bound_.may_have_momentum || next_value(settings_, progress_).momentum != 0.0; }

  // True if prepare_next() calls a user's function.
  bool calls_back() const { return bound_.calls_back; }
  // Returns the function that a piece of the schedule calls.
  py::object scale_fn(std::size_t piece) const { return py::tuple(scale_fns_)[piece]; }
  // True if the schedule has a value here that an update can use.
  bool has_scheduled_value() const { return is_valid(bound_.pieces, bound_.count, progress_.step, scheduled_value()); }

  // True if this update is the first one past the end of the schedule. The user is then warned.
  bool is_at_end() const { return progress_.step == bound_.end && !is_overridden(); }
  void warn_of_end() const { position().warn_of_end(); }

  // True if this update follows the schedule and is the last one of a cycle.
  bool ends_cycle() const { return !is_overridden() && bound_.cycle_position(progress_.step + 1).at_end; }
  Cycles cycles() const { return bound_.cycles; }
  bool averages_at_cycle_ends() const { return has_options_ && settings_.averaging == Averaging::at_cycle_ends; }

  // Computes what write() will write: the position and values of the next update. Throws whatever scale_fn throws.
  // `before`: next() of the previous group, or an empty Scheduled. `first`: the first group, whose cycles decide when
  // average="swa" averages.
  void prepare_next(const Scheduled& before, const BoundGroup& first);
  const Scheduled& next() const { return next_; }

  // Counts an update that was applied. Runs no Python: `replaced` takes the objects that stood in the group.
  void write(std::vector<py::object>& replaced);

  // Counts an update that was skipped, after prepare_skipped(). `goes_on`: True if the schedule advances all the same.
  void prepare_skipped();
  void write_skipped(bool goes_on, std::vector<py::object>& replaced);

  // Writes into the group what a device has counted. `pending`: the values of an override that the device has yet to
  // carry out, or null. What was set in the group since the last step stays.
  // `last_skipped`: True if the last step was skipped.
  void take(const GroupProgress& counted, const Value* pending, bool last_skipped);

  // A number that no other binding has. It changes when something other than a step sets the group's position or a
  // counter.
  std::uint64_t position_version() const { return position_version_; }
  // A different number for each binding.
  std::uint64_t binding_id() const { return binding_id_; }
  // The number of the dict, which it keeps when it is bound anew.
  std::uint64_t group_id() const { return group_id_; }
  void keep_id(const BoundGroup& before) { group_id_ = before.group_id_; }

  // The lr and momentum of the last update, or nothing before the first.
  std::optional<Value> last_used() const { return updated_ ? std::optional<Value>(last_used_) : std::nullopt; }

  // True if the last step followed the schedule. False if lr or momentum was set by hand, or if the step was skipped.
  bool followed_schedule() const { return followed_; }

  int traverse(visitproc visit, void* arg) const;

 private:
  // A number in the group and the object that it was read from. While the same object stands in the group, nothing is
  // parsed.
  struct Setting {
    py::object object;
    double value = 0.0;
  };

  NamedPosition position() const { return {index_, "applied_steps", progress_.step}; }
  // What in the dict is other than the last read() and write() left it: nothing, lr and momentum of a constant
  // schedule, or anything.
  enum class Change : std::uint8_t { none, values, any };

  GroupReader reader() const { return {group_.ptr(), index_}; }
  Value scheduled_value() const { return {progress_.lr, progress_.momentum}; }
  double scheduled_lr() const { return scaled_lr(settings_, progress_.lr); }
  bool has_scheduled_momentum() const { return has_momentum(scheduled_value()); }
  bool is_unchanged() const { return change_ == Change::none; }
  Change change() const;
  // Returns the schedule's values at the position, with the objects to write.
  Scheduled scheduled() const;
  void remember();
  void forget();
  void refresh(Setting& setting, PyObject* key) const;
  [[noreturn]] void refuse_position(PyObject* object) const;
  void read_position();
  bool read_scheduled(PyObject* key, const py::object& written, double scheduled, double& value) const;
  void read_constant(PyObject* key, py::object& known, double& value) const;
  void read_values();
  void read_new_values();
  void read_settings();
  void read_momentum();
  void require_nesterov() const;
  void require_legal_parameters() const;
  void require_valid_values() const;
  static py::object shared(double value, double a, const py::object& object_a, double b, const py::object& object_b);
  void use(std::uint64_t step);
  void take_count(PyObject* key, std::uint64_t count, std::uint64_t before);
  void prepare_counters(const GroupProgress& counted);
  void write_items();
  void write_next(std::vector<py::object>& replaced);

  // The members that every step touches come first: a step over many groups waits for memory, not for arithmetic.
  WatchedDict group_;
  // These tell that the dict is as the last read() and write() left it: its version, or its entries in their order
  // (walking over the entries is far cheaper than looking up all keys). 0 and empty say nothing (a tensor can change in
  // place).
  std::uint64_t version_ = 0;
  std::vector<std::pair<PyObject*, PyObject*>> entries_;
  struct {
    std::uint32_t step = 0, lr = 0, momentum = 0;
  } place_;  // of these keys in entries_
  py::object parameters_;
  Change change_ = Change::any;
  bool lr_overridden_ = false, foreign_zero_ = false;
  bool followed_ = true;
  bool has_options_ = false;
  bool updated_ = false;
  bool ends_cycle_ = false;   // True if this update is the last of a cycle of the first group, and that matters
  std::uint32_t driven_ = 0;  // updates in a row so far, with lr set by hand
  Value last_used_{};
  GroupProgress progress_{};
  GroupSettings settings_{};
  ScheduleView bound_{};  // of bound_object_
  Scheduled written_;     // last written by us: these stand in the group unless somebody changed it
  Scheduled next_;
  py::object step_object_;                       // of progress_.step
  py::object next_n_averaged_, next_n_updates_;  // null: this update does not count them
  GroupOptions options_;
  std::uint64_t group_id_, binding_id_, position_version_;

  std::size_t index_;
  py::object schedule_, schedule_item_;  // Python's object; the object in the group when it was bound
  py::object bound_object_, scale_fns_;
  py::object next_skipped_;
  Setting momentum_, dampening_, weight_decay_;  // momentum_: used if the schedule has none
};

}  // namespace clr
