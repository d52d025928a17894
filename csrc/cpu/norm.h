// The pass over gradients that clipping, LARS and the search for infinities need before the first weight moves. It
// reads only.
#pragma once

#include <cstddef>
#include <vector>

#include "cpu/kernels.h"
#include "kernel/plan.h"

namespace clr {

// The lengths of a slot's parameter and gradient, within 0.5 ulp and a little (core/norm.h).
struct SlotNorms {
  double parameter, gradient;
};

// The results, and scratch that keeps its memory from step to step.
struct Norms {
  NormPart total;                // of all gradients
  std::vector<SlotNorms> slots;  // one a slot; zeros unless the slot is trusted and has a gradient
  std::vector<Cut> cuts;
  std::vector<std::size_t> first_chunks;  // one a slot: the number of chunks of the slots before it
  std::size_t chunk_count = 0;
  std::vector<NormPart> parts;  // a part of each chunk's gradient, then of each wanted chunk's parameter
  std::vector<NormPart>
      of_one_sum;  // scratch: the parts of gradients that go into one of the sums that processes add up
};

// Sums the squares of all gradients, and of the parameters of trusted slots (of the float32 weight if there is a master
// weight). Slots without a gradient are left out. `limit`: see CpuKernels::sum_squares; for gradients only. Runs in
// parallel if that is faster. Needs no GIL. The bits depend on the plan alone. Returns false if the thread pool failed.
bool run_norms(const StepPlan& plan, const CpuKernels& kernels, double limit, Norms& norms);

// Only finds norms.total.finite: false if any gradient has an infinity or a NaN. Otherwise like run_norms.
bool run_finite_check(const StepPlan& plan, const CpuKernels& kernels, Norms& norms);

}  // namespace clr
