#include "cpu/step.h"

#include "core/prefetch.h"
#include "cpu/parallel.h"

namespace clr {

namespace {

// Below this many bytes of parameters waking a second thread costs more than it saves (bench/README.md).
constexpr std::int64_t kSerialBytes = 64 * 1024;

constexpr std::size_t kAhead = 2;  // how many slots ahead prefetch() runs

CLR_INLINE void prefetch(const Slot& slot) {
  constexpr std::size_t kBytes = 256;
  prefetch_bytes(slot.parameter, kBytes);
  prefetch_bytes(slot.gradient, kBytes);
  prefetch_bytes(slot.buffer, kBytes);
}

struct StepContext {
  const StepPlan& plan;
  const CpuKernels& kernels;
  const std::vector<Cut>& cuts;
};

void run_part(int part, void* context) {
  const StepContext& step = *static_cast<const StepContext*>(context);
  const auto i = static_cast<std::size_t>(part);
  run_between(step.plan, step.kernels, step.cuts[i], step.cuts[i + 1]);
}

}  // namespace

void run_between(const StepPlan& plan, const CpuKernels& kernels, Cut from, Cut to) {
  std::int64_t begin = from.element;
  for (std::size_t i = from.slot; i < plan.slots.size() && i <= to.slot; ++i, begin = 0) {
    const Slot& slot = plan.slots[i];
    if (i + kAhead < plan.slots.size()) prefetch(plan.slots[i + kAhead]);
    const std::int64_t end = i == to.slot ? to.element : slot.size;
    kernels.update(plan.gradients, plan.groups[slot.group], slot, {begin, end});
  }
}

bool run_step(const StepPlan& plan, const CpuKernels& kernels, std::vector<Cut>& cuts) {
  const bool serial = plan.in_order || plan.parameter_bytes() < kSerialBytes;
  const int parts = serial ? 1 : thread_count();
  if (parts == 1) {
    run_between(plan, kernels, {0, 0}, {plan.slots.size(), 0});
    return true;
  }
  plan.cut(parts, cuts);
  StepContext step = {plan, kernels, cuts};
  return run_parts(parts, run_part, &step);
}

}  // namespace clr
