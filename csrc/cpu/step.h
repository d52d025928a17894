// Runs a plan on this processor.
#pragma once

#include <vector>

#include "cpu/kernels.h"
#include "kernel/plan.h"

namespace clr {

// Updates everything between two cuts of the work list.
void run_between(const StepPlan& plan, const CpuKernels& kernels, Cut from, Cut to);

// Runs the whole plan, in parallel if that is faster. `cuts` is scratch that keeps its memory from step to step. Needs
// no GIL. Returns false if the thread pool failed.
bool run_step(const StepPlan& plan, const CpuKernels& kernels, std::vector<Cut>& cuts);

}  // namespace clr
