// Runs the steps of an optimizer on this processor.
#pragma once

#include <vector>

#include "cpu/isa.h"
#include "cpu/norm.h"
#include "kernel/executor.h"

namespace clr {

class CpuExecutor final : public Executor {
 public:
  void measure(const StepPlan& plan, const GradientOptions& options, const StepRequest& request) override {
    if (measures_gradients(plan, options, request)) measure_all(plan, options, request);
  }
  Measured decide(StepPlan& plan, const GradientOptions& options, const StepRequest& request) override;
  void run(const StepPlan& plan) override;
  LastStep last_step() const override { return last_; }
  bool works_without_python() const override { return true; }

 private:
  void measure_all(const StepPlan& plan, const GradientOptions& options, const StepRequest& request);
  void set_trust_ratios(StepPlan& plan) const;

  const CpuKernels* kernels_ = selected_isa().kernels;
  LastStep last_;
  Norms norms_;
  std::vector<Cut> cuts_;
};

}  // namespace clr
