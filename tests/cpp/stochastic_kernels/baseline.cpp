#include "cpu/lanes_baseline.h"
#include "stochastic_kernels/loop.inl"

const clr_test::StochasticKernels clr_test::baseline_stochastic_kernels = CLR_STOCHASTIC_KERNELS("baseline");
