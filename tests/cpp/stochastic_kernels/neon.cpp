#include "cpu/lanes_neon.h"
#include "stochastic_kernels/loop.inl"

const clr_test::StochasticKernels clr_test::neon_stochastic_kernels = CLR_STOCHASTIC_KERNELS("neon");
