// One optimizer step: read and check everything, then write.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <vector>

#include "cpu/executor.h"
#include "cuda/device_steps.h"
#include "python/optimizer/averages_in_place.h"
#include "python/optimizer/groups.h"
#include "python/optimizer/parameters.h"
#include "python/optimizer/scale_tables.h"
#include "python/optimizer/shards.h"

namespace clr {

class NativeOptimizer {
 public:
  // `read_schedule(group, known)`: see BoundGroups::rebind. `averaged_entries()`: see AveragesInPlace. `sharding`: see
  // Shards.
  NativeOptimizer(py::object read_schedule, py::object averaged_entries, py::object sharding);

  GradientOptions options;

  // If false, the counts that lead to warnings stand still. A range test sets this, because it drives the optimizer.
  bool warns = true;

  AveragesInPlace averages;
  Shards shards;

  // Binds one more group.
  void append(py::dict group, py::object schedule, bool is_obeyed);

  // Replaces all groups by these. Devices keep their tables, so that captured graphs go on with this optimizer.
  void adopt(BoundGroups& groups);

  // Returns the schedule that stands in a group, with the functions of the schedule that was bound.
  py::object schedule_of(const py::dict& group) const;

  // Returns the lr and momentum that a step would use for a group, as (its schedule, True if they differ from the
  // schedule's values, lr, momentum or None).
  py::tuple last_used(const py::dict& group) const;
  py::tuple standing(const py::dict& group, std::size_t index) const;

  // Applies one update to all parameters that have a gradient, or skips it.
  void apply(const py::list& groups, const py::dict& state, const StepRequest& request);

  // Applies this step's update to one parameter as soon as it has a gradient, and frees the gradient (gradient
  // release). The first call of a step reads the groups. Their numbers hold until apply() ends the step with the
  // parameters that still have a gradient. `position`: the parameter's place among all parameters, if nothing has
  // changed. Throws RuntimeError for a second gradient, and for options that need all gradients at once.
  void release(const py::list& groups, const py::dict& state, const py::object& parameter, std::size_t position);
  // Throws RuntimeError if these groups, or the options, need all gradients at once.
  void check_release(const py::list& groups);
  // True if any parameter had a gradient at the last step.
  bool found_gradient() const { return found_gradient_; }
  // True if release() has begun a step that apply() has not ended.
  bool is_open() const { return open_; }

  // Returns the results of the last step. Waits for the device if the step ran on one.
  LastStep last_step() const;

  // Writes the counts of the devices into the groups. Removes state that a skipped step was to fill. Waits for the
  // devices. Throws if it turns out that another process has refused a step.
  void synchronise(const py::dict& state);

  // True if the last step has become part of a graph.
  bool was_recorded() const { return captured_; }
  DeviceSteps& devices() { return devices_; }

  // True if the last step of this group followed its schedule. False if the step was skipped or captured in a graph.
  bool followed_schedule(const py::dict& group) const;

  int traverse(visitproc visit, void* arg) const;
  void clear();

 private:
  // Throws if a step is already running: a scale_fn, or another thread while a kernel runs without the GIL, may call
  // the optimizer. Releases gradients at its end.
  class Busy {
   public:
    explicit Busy(NativeOptimizer& optimizer);
    ~Busy();
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

   private:
    NativeOptimizer& optimizer_;
  };

  // Reading the groups, at the beginning of a step.
  void begin(const py::list& groups, const py::dict& state);
  void bind_groups(const py::list& groups);
  bool read_groups(const py::list& groups);
  bool catch_up(const py::list& groups, const py::dict& state);
  void take_counts(const py::dict& state);
  void tell_of_refusal();
  void call_user_code();
  void warn_of_driver();

  // Reading the tensors.
  void read_tensors(const py::dict& state, const StepRequest& request);
  // True if a step needs a dict in optimizer.state for a parameter of this group.
  static bool needs_entry(const BoundGroup& group, bool has_gradient);
  bool warn_of_no_gradient();
  bool may_be_probe() const;
  bool is_probe(const py::dict& state);
  // True if the step writes unscaled gradients. At scale 1 gradients are unscaled already.
  bool writes_unscaled(const StepRequest& request) const {
    return options.write_unscaled && (request.scale != 1.0 || request.grad_scale.at != nullptr);
  }
  // Empties a list that is kept for its memory.
  static void empty(const py::list& list);
  bool read(Reading reading);
  bool take_gradients(std::size_t begin, std::size_t end);
  void prefetch_again(std::size_t begin, std::size_t end) const;
  void prefetch(const TorchReader& torch, std::ptrdiff_t position) const;
  void look(std::size_t begin, std::size_t end, std::size_t block);
  void settle(const py::dict& state, Reading reading);
  void note_device(const BoundParameter& parameter, std::size_t position, Reading reading);
  bool list_active(Py_ssize_t place, const py::object& parameter);
  void make_state();

  // The update.
  Executor* prepare(const py::list& groups, const py::dict& state, const StepRequest& request);
  void lay_out_numbers(const StepRequest& request);
  void share(const StepRequest& request);
  bool all_make_state(bool makes_state);
  void tell_refusal(const StepRequest& request);
  Executor& executor();
  Executor& on_devices();
  bool runs_on_devices() const;
  bool tabulate_scales();
  bool sets_aside_invalid_values() const;
  void measure(Executor& executor, const StepRequest& request);
  void run(Executor& executor);
  void write();
  void write_skipped(const py::dict& state);

  // Gradient release.
  bool read_released(BoundParameter& bound, const py::dict& state);
  bool prepare_release(BoundParameter& bound, const py::dict& state);
  bool is_released(std::size_t position) const;
  void refuse_release(const StepRequest& request) const;

  BoundGroups groups_;
  BoundParameters parameters_;
  py::object read_schedule_;
  py::list active_;    // the parameters of the last update
  py::list unscaled_;  // gradients that the running step writes
  StepPlan plan_;
  KeepAlive keep_alive_;
  static constexpr std::size_t kBlock = 16;    // parameters that are looked at together
  static constexpr std::ptrdiff_t kApart = 6;  // parameters between two stages of a prefetch
  BoundParameter::Look looks_[kBlock];
  CpuExecutor cpu_;
  DeviceSteps devices_;
  ScaleTables scales_;
  bool moved_ = true;                       // True if memory has moved since overlaps were looked for
  bool only_makes_state_ = false;           // of this step
  bool found_gradient_ = false;             // True if any parameter has a gradient
  std::vector<std::size_t> without_entry_;  // positions of parameters that need an entry in optimizer.state
  std::vector<std::size_t> made_entries_;   // of this step
  unsigned steps_without_gradient_ = 0;     // in a row
  bool warned_of_driver_ = false, warned_of_no_gradient_ = false;
  bool calls_user_code_ = false;
  bool asks_for_state_ = false;  // True if every lr is a zero that somebody else has written
  bool is_driven_ = false;       // True if something else has driven a group for long enough to warn
  bool open_ = false;
  bool has_voted_ = false;    // True if processes have told each other in this step whether they only make state
  bool is_refused_ = false;   // True if another process has refused this step
  bool was_refused_ = false;  // True if one has refused an earlier one, and the user has not been told
  bool has_updated_ = false;  // True if an update has been made since the groups were adopted
  std::vector<std::size_t> slot_positions_;  // of a step over shards: the position of each slot's parameter
  std::vector<bool> released_;               // of an open step: True for each parameter that is updated
  bool captured_ = false;                    // True if the last step is part of a graph
  bool busy_ = false;
};

}  // namespace clr
