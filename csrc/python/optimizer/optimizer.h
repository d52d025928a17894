// One optimizer step: read and check everything, then write.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/plan.h"
#include "cpu/isa.h"
#include "cpu/norm.h"
#include "cpu/step.h"
#include "python/optimizer/device_steps.h"
#include "python/optimizer/group.h"
#include "python/optimizer/parameters.h"

namespace clr {

// What holds for all gradients of an optimizer.
struct GradientRules {
  double max_norm = 0.0, max_value = 0.0;  // 0: not clipped
  bool error_if_nonfinite = false;
  bool skip_nonfinite = false;
  bool advance_on_skip = false;
  bool write_unscaled = false;
};

// One float32 on a CUDA device.
struct DeviceNumber {
  float* at = nullptr;  // null for none
  int device = -1;
};

// What a call of step() is told.
struct StepRequest {
  double scale;  // what gradients are multiplied by
  // Is an infinity or a NaN among the gradients? Nothing: to be found out.
  std::optional<bool> found_inf;
  // In the place of both numbers: the scale of the loss, and what was found (not zero: an infinity or a NaN). And where
  // to write what is found out.
  DeviceNumber grad_scale = {}, device_found_inf = {}, report_inf = {};
};

class Step {
 public:
  GradientRules rules;

  // False: nothing is counted that would be warned of, as under a range test, which drives the optimizer.
  bool warns = true;

  // Binds group number `index` to a schedule of Python's. What is known of another group that has had this number is
  // kept until the groups are put in order.
  void bind(std::size_t index, py::dict group, py::object schedule);

  // The binding of this dict; null if there is none.
  BoundGroup* binding(const py::dict& group) const;

  bool is_bound(std::size_t index, const py::dict& group) const;

  // Applies one update to everything that has a gradient, or skips it. Returns false, with nothing done, if some group
  // is not bound.
  bool apply(const py::list& groups, const py::dict& state, const StepRequest& request);

  // Applies this step's update to one parameter, as soon as it has a gradient, and frees that (gradient release): the
  // first call of a step reads the groups, whose numbers hold until apply() ends the step with what has a gradient
  // left. `position`: of the parameter among all, if nothing has changed. Throws RuntimeError for a second gradient and
  // for what needs all gradients at once.
  bool release(const py::list& groups, const py::dict& state, const py::object& parameter, std::size_t position);
  // Has release() begun a step that apply() has not ended?
  bool is_open() const { return open_; }

  // Of the last step. Waits for the device, if that ran on one.
  bool was_skipped() const;
  std::optional<double> gradient_norm() const;  // if it was wanted
  double clip_coefficient() const;

  // Puts what devices have counted into the groups; takes state out that a skipped step was to fill. Waits for the
  // devices.
  void synchronise(const py::dict& state);
  // Goes on with the tables that another step has on devices, so that graphs captured with it follow this one.
  void adopt(Step& other);

  // True if the last step of this group followed its schedule: not if it was skipped, or captured in a graph.
  bool followed_schedule(const py::dict& group) const;

  int traverse(visitproc visit, void* arg) const;
  void clear();

 private:
  // A scale_fn, or another thread while a kernel runs without the GIL, may call back. Also lets go of gradients.
  class Busy {
   public:
    explicit Busy(Step& step);
    ~Busy();
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

   private:
    Step& step_;
  };

  bool begin(const py::list& groups, const py::dict& state);
  bool read_groups(const py::list& groups);
  void reorder(const py::list& groups);
  void call_user_code();
  void warn_of_driver();
  // True if a step must find a dict for a parameter of this group in optimizer.state.
  static bool needs_entry(const BoundGroup& group, bool has_gradient);
  bool warn_of_no_gradient();
  bool is_probe(const py::dict& state) const;
  // At scale 1 gradients are unscaled already.
  bool writes_unscaled(const StepRequest& request) const {
    return rules.write_unscaled && (request.scale != 1.0 || request.grad_scale.at != nullptr);
  }
  // Takes everything out of a list that is kept for its memory.
  static void empty(const py::list& list);
  bool read(Reading reading);
  bool take_gradients(std::size_t begin, std::size_t end);
  void look(std::size_t begin, std::size_t end, std::size_t block);
  void settle(const py::dict& state, Reading reading);
  void make_state();
  bool catch_up(const py::list& groups, const py::dict& state);
  void note_device(const BoundParameter& parameter, std::size_t position, Reading reading);
  void apply_on_devices(const StepRequest& request);
  void refuse_on_devices(const StepRequest& request) const;
  DeviceStep device_step(const StepRequest& request) const;
  void put_back() const;
  bool is_released(std::size_t position) const;
  void refuse_release() const;
  bool list_active(Py_ssize_t place, const py::object& parameter);
  bool measure(const StepRequest& request);
  [[noreturn]] static void refuse_norm(double norm);
  void apply_trust_ratios();
  void run();
  void run_one_by_one(const CpuKernels& kernels);
  void write_state();
  void write();
  void write_skipped();

  Groups groups_;
  std::unordered_map<PyObject*, std::size_t> places_;  // of the dicts of groups_
  BoundParameters parameters_;
  py::list active_;    // the parameters of the last update
  py::list unscaled_;  // gradients that the running step writes
  StepPlan plan_;
  std::vector<Cut> cuts_;
  Norms norms_;
  Held held_;
  static constexpr std::size_t kBlock = 16;  // parameters that are looked at together
  BoundParameter::Look looks_[kBlock];
  DeviceSteps device_steps_;
  std::vector<int> devices_;  // CUDA devices of the slots of the running step: of all of them, or the step is refused
  std::optional<double> gradient_norm_;
  bool moved_ = true;                       // has memory moved since overlaps were looked for?
  bool new_state_ = false;                  // did read() make any?
  bool found_gradient_ = false;             // does any parameter have one?
  std::vector<std::size_t> without_entry_;  // positions of parameters that need an entry in optimizer.state
  std::vector<std::size_t> made_entries_;   // of this step
  unsigned steps_without_gradient_ = 0;     // in a row
  bool warned_of_driver_ = false, warned_of_no_gradient_ = false;
  bool trusts_ = false;  // does any slot?
  bool calls_user_code_ = false;
  bool is_driven_ = false;  // is any group driven by something else, long enough to say so?
  bool open_ = false;
  std::vector<bool> released_;  // of a step that is open: the parameters that are done
  bool skipped_ = false;
  bool measured_norm_ = false, captured_ = false;  // on devices
  bool busy_ = false;
};

}  // namespace clr
