#include "cpu/executor.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "core/norm.h"
#include "cpu/shared_norms.h"
#include "cpu/step.h"

namespace clr {

namespace {

[[noreturn]] void fail(const char* meaning) {
  throw std::runtime_error(std::string("torch's thread pool failed in the middle of a step: ") + meaning);
}

// Runs slots one after the other. A tensor with gaps may share memory with another tensor, so each copy is made just
// before its slot runs.
void run_one_by_one(const StepPlan& plan, const CpuKernels& kernels) {
  auto copy = plan.copies.begin();
  for (std::size_t i = 0; i < plan.slots.size(); ++i) {
    auto last = copy;
    while (last != plan.copies.end() && last->slot() == i) ++last;
    for (auto each = copy; each != last; ++each) each->fill();
    run_between(plan, kernels, {i, 0}, {i + 1, 0});
    for (; copy != last; ++copy) copy->put_back();
  }
}

}  // namespace

void CpuExecutor::measure_all(const StepPlan& plan, const GradientOptions& options, const StepRequest& request) {
  const bool complete = wants_norm(plan, options)
                            ? run_norms(plan, *kernels_, options.max_value / request.scale, norms_)
                            : run_finite_check(plan, *kernels_, norms_);
  if (!complete) fail("nothing has changed");
  if (plan.shared.numbers != nullptr) put_numbers(plan, norms_);
}

Measured CpuExecutor::decide(StepPlan& plan, const GradientOptions& options, const StepRequest& request) {
  if (plan.shared.numbers != nullptr) take_numbers(plan.shared, norms_);
  last_ = {};
  if (wants_norm(plan, options)) {
    const DoubleDouble norm = scaled(square_root(norms_.total.squares), request.scale);
    last_.gradient_norm = norm.hi;
    if (options.max_norm != 0.0) last_.clip_coefficient = clip_coefficient(norm, options.max_norm);
    plan.gradients.clip_coefficient = last_.clip_coefficient;
  }
  const bool finite = !looks_for_infinity(options, request) || norms_.total.finite;
  last_.skipped = request.found_inf.value_or(false) || !finite;
  if (last_.skipped) return {true, false};
  if (options.error_if_nonfinite && last_.gradient_norm && !std::isfinite(*last_.gradient_norm)) {
    refuse_norm(*last_.gradient_norm);
  }
  if (plan.trusts) set_trust_ratios(plan);
  return {};
}

void CpuExecutor::set_trust_ratios(StepPlan& plan) const {
  const double factor = plan.gradients.scale * plan.gradients.clip_coefficient;
  for (std::size_t i = 0; i < plan.slots.size(); ++i) {
    Slot& slot = plan.slots[i];
    if (!slot.trusted) continue;
    const GroupValues& group = plan.groups[slot.group];
    slot.trust_ratio = trust_ratio(group.trust_coefficient, group.trust_eps, group.weight_decay,
                                   norms_.slots[i].parameter, factor * norms_.slots[i].gradient);
  }
}

void CpuExecutor::run(const StepPlan& plan) {
  if (plan.in_order && !plan.copies.empty()) return run_one_by_one(plan, *kernels_);
  const bool complete = run_step(plan, *kernels_, cuts_);
  for (const StridedCopy& copy : plan.copies) copy.put_back();
  if (!complete) fail("weights are undefined");
}

}  // namespace clr
