// The interface between a step and the executor that runs it: the CPU or CUDA devices.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>

#include "kernel/plan.h"

namespace clr {

// The options for all gradients of an optimizer.
struct GradientOptions {
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

// The arguments of step() about the gradients.
struct StepRequest {
  double scale = 1.0;                     // the factor that gradients are multiplied by
  std::optional<bool> found_inf = false;  // True if a gradient is infinite or NaN; nullopt: the step finds out
  // On a device, these replace both numbers: the scale of the loss, and a number that is not zero if an infinity or a
  // NaN was found. report_inf: the number into which the step writes its own result.
  DeviceNumber grad_scale = {}, device_found_inf = {}, report_inf = {};
};

// True if a step must find out by itself whether an infinity or a NaN is among the gradients.
inline bool looks_for_infinity(const GradientOptions& options, const StepRequest& request) {
  return options.skip_nonfinite || (!request.found_inf && request.device_found_inf.at == nullptr);
}

// True if the length of all gradients together is wanted.
inline bool wants_norm(const StepPlan& plan, const GradientOptions& options) {
  return options.max_norm != 0.0 || plan.trusts;
}

// True if a pass over all gradients must come before the update.
inline bool measures_gradients(const StepPlan& plan, const GradientOptions& options, const StepRequest& request) {
  return wants_norm(plan, options) || looks_for_infinity(options, request);
}

// What the host knows about a step before the first write.
struct Measured {
  bool skips = false;        // True if the update is to be skipped; a device may decide that for itself
  bool is_recorded = false;  // True if the step becomes part of a graph: then it is no update by itself
};

// The results of the last step.
struct LastStep {
  bool skipped = false;
  std::optional<double> gradient_norm;  // if it was wanted
  double clip_coefficient = 1.0;
};

class Executor {
 public:
  virtual ~Executor() = default;

  // Measures the gradients, and writes what it finds to plan.shared.numbers if there are any, which the owner adds up
  // over the processes before decide(). Changes no weight. Throws std::runtime_error if the step cannot be run.
  virtual void measure(const StepPlan& plan, const GradientOptions& options, const StepRequest& request) = 0;

  // Says what comes of it, and puts the factors of gradients into the plan. Changes no weight. Throws
  // std::runtime_error if that is an error.
  virtual Measured decide(StepPlan& plan, const GradientOptions& options, const StepRequest& request) = 0;

  // Updates everything in the plan, which was measured just before. Throws std::runtime_error only where weights are
  // lost.
  virtual void run(const StepPlan& plan) = 0;

  virtual LastStep last_step() const = 0;

  // True if measure() and run() keep this thread busy without Python. Other threads may then run Python.
  virtual bool works_without_python() const = 0;
};

// Throws where another process has refused a step.
[[noreturn]] inline void refuse_for_another() {
  throw std::runtime_error("another process refused this step, and says why: nothing has changed in any of them");
}

// Throws where some parameters are on the CPU and some on a device.
[[noreturn]] inline void refuse_mixed_devices() {
  throw std::runtime_error("parameters on cpu and on cuda cannot be updated by one optimizer: make one for each");
}

// Throws what error_if_nonfinite asks for.
[[noreturn]] inline void refuse_norm(double norm) {
  throw std::runtime_error(std::string("the norm of all gradients is ") + (norm != norm ? "nan" : "inf") +
                           ": with error_if_nonfinite=True that is an error, and nothing has changed");
}

}  // namespace clr
