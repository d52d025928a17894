// The seam between a step and what runs it: this processor, or CUDA devices.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>

#include "kernel/plan.h"

namespace clr {

// What holds for all gradients of an optimizer.
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

// What step() is told about the gradients.
struct StepRequest {
  double scale = 1.0;                     // the factor that gradients are multiplied by
  std::optional<bool> found_inf = false;  // True if one is infinite or NaN; nothing: the step finds out
  // On a device, in the place of both numbers: the scale of the loss, and what was found (not zero: an infinity or a
  // NaN). report_inf: where the step writes what it finds out.
  DeviceNumber grad_scale = {}, device_found_inf = {}, report_inf = {};
};

// True if a step must find out by itself whether an infinity or a NaN is among the gradients.
inline bool looks_for_infinity(const GradientOptions& options, const StepRequest& request) {
  return options.skip_nonfinite || (!request.found_inf && request.device_found_inf.at == nullptr);
}

// True if a pass over all gradients must come before the update.
inline bool measures_gradients(const StepPlan& plan, const GradientOptions& options, const StepRequest& request) {
  return options.max_norm != 0.0 || plan.trusts || looks_for_infinity(options, request);
}

// What the host knows of a step before its first write.
struct Measured {
  bool skips = false;        // True if the update is to be skipped; a device may decide that for itself
  bool is_recorded = false;  // True if the step becomes part of a graph: it counts for nothing by itself
};

// What was found out about the last step.
struct LastStep {
  bool skipped = false;
  std::optional<double> gradient_norm;  // if it was wanted
  double clip_coefficient = 1.0;
};

class Executor {
 public:
  virtual ~Executor() = default;

  // Finds out what the gradients decide, and puts that into the plan. No weight has changed yet, and what cannot be run
  // throws std::runtime_error.
  virtual Measured measure(StepPlan& plan, const GradientOptions& options, const StepRequest& request) = 0;

  // Updates everything in the plan, which was measured just before. Throws std::runtime_error only where weights are
  // lost.
  virtual void run(const StepPlan& plan) = 0;

  virtual LastStep last_step() const = 0;

  // True if measure() and run() keep this thread busy without Python: other threads may run it meanwhile.
  virtual bool works_without_python() const = 0;
};

// Throws what error_if_nonfinite asks for.
[[noreturn]] inline void refuse_norm(double norm) {
  throw std::runtime_error(std::string("the norm of all gradients is ") + (norm != norm ? "nan" : "inf") +
                           ": with error_if_nonfinite=True that is an error, and nothing has changed");
}

}  // namespace clr
