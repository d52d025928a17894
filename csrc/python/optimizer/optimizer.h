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

namespace clr {

class NativeOptimizer {
 public:
  // `read_schedule(group, known)`: see BoundGroups::rebind. `averaged_entries()`: see AveragesInPlace.
  NativeOptimizer(py::object read_schedule, py::object averaged_entries);

  GradientOptions options;

  // False: nothing is counted that would be warned of, as under a range test, which drives the optimizer.
  bool warns = true;

  AveragesInPlace averages;

  // Binds one more group.
  void append(py::dict group, py::object schedule, bool is_obeyed);

  // Goes on with these groups in the place of all others. Devices keep their tables, so that graphs captured with them
  // follow this one.
  void adopt(BoundGroups& groups);

  // The schedule that stands in a group, with the functions of the one that was bound.
  py::object schedule_of(const py::dict& group) const;

  // What a step would take for the lr and momentum of a group: (its schedule, True if they are not the schedule's,
  // lr, momentum or None).
  py::tuple standing(const py::dict& group) const;

  // Applies one update to everything that has a gradient, or skips it.
  void apply(const py::list& groups, const py::dict& state, const StepRequest& request);

  // Applies this step's update to one parameter, as soon as it has a gradient, and frees that (gradient release): the
  // first call of a step reads the groups, whose numbers hold until apply() ends the step with what has a gradient
  // left. `position`: of the parameter among all, if nothing has changed. Throws RuntimeError for a second gradient and
  // for what needs all gradients at once.
  void release(const py::list& groups, const py::dict& state, const py::object& parameter, std::size_t position);
  // Throws RuntimeError if these groups, or the options, need all gradients at once.
  void check_release(const py::list& groups);
  // True if release() has begun a step that apply() has not ended.
  bool is_open() const { return open_; }

  // What was found out about the last step. Waits for the device, if that ran on one.
  LastStep last_step() const;

  // Puts what devices have counted into the groups; takes state out that a skipped step was to fill. Waits for the
  // devices.
  void synchronise(const py::dict& state);

  // True if the last step of this group followed its schedule: not if it was skipped, or captured in a graph.
  bool followed_schedule(const py::dict& group) const;

  int traverse(visitproc visit, void* arg) const;
  void clear();

 private:
  // A scale_fn, or another thread while a kernel runs without the GIL, may call back. Also lets go of gradients.
  class Busy {
   public:
    explicit Busy(NativeOptimizer& optimizer);
    ~Busy();
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

   private:
    NativeOptimizer& optimizer_;
  };

  // The groups, at the beginning of a step.
  void begin(const py::list& groups, const py::dict& state);
  void bind_groups(const py::list& groups);
  bool read_groups(const py::list& groups);
  bool catch_up(const py::list& groups, const py::dict& state);
  void call_user_code();
  void warn_of_driver();

  // The tensors.
  void read_tensors(const py::dict& state, const StepRequest& request);
  // True if a step must find a dict for a parameter of this group in optimizer.state.
  static bool needs_entry(const BoundGroup& group, bool has_gradient);
  bool warn_of_no_gradient();
  bool is_probe() const;
  // At scale 1 gradients are unscaled already.
  bool writes_unscaled(const StepRequest& request) const {
    return options.write_unscaled && (request.scale != 1.0 || request.grad_scale.at != nullptr);
  }
  // Takes everything out of a list that is kept for its memory.
  static void empty(const py::list& list);
  bool read(Reading reading);
  bool take_gradients(std::size_t begin, std::size_t end);
  void look(std::size_t begin, std::size_t end, std::size_t block);
  void settle(const py::dict& state, Reading reading);
  void note_device(const BoundParameter& parameter, std::size_t position, Reading reading);
  bool list_active(Py_ssize_t place, const py::object& parameter);
  void make_state();

  // The update.
  Executor& executor();
  void refuse_on_devices() const;
  Measured measure(Executor& executor, const StepRequest& request);
  void run(Executor& executor);
  void write();
  void write_skipped(const py::dict& state);

  // Gradient release.
  bool read_released(BoundParameter& bound, const py::dict& state);
  bool is_released(std::size_t position) const;
  void refuse_release(const StepRequest& request) const;

  BoundGroups groups_;
  BoundParameters parameters_;
  py::object read_schedule_;
  py::list active_;    // the parameters of the last update
  py::list unscaled_;  // gradients that the running step writes
  StepPlan plan_;
  KeepAlive keep_alive_;
  static constexpr std::size_t kBlock = 16;  // parameters that are looked at together
  BoundParameter::Look looks_[kBlock];
  CpuExecutor cpu_;
  DeviceSteps devices_;
  bool moved_ = true;                       // has memory moved since overlaps were looked for?
  bool only_makes_state_ = false;           // of this step
  bool found_gradient_ = false;             // does any parameter have one?
  std::vector<std::size_t> without_entry_;  // positions of parameters that need an entry in optimizer.state
  std::vector<std::size_t> made_entries_;   // of this step
  unsigned steps_without_gradient_ = 0;     // in a row
  bool warned_of_driver_ = false, warned_of_no_gradient_ = false;
  bool calls_user_code_ = false;
  bool is_driven_ = false;  // is any group driven by something else, long enough to say so?
  bool open_ = false;
  std::vector<bool> released_;  // of a step that is open: the parameters that are done
  bool captured_ = false;       // is the last step part of a graph?
  bool busy_ = false;
};

}  // namespace clr
