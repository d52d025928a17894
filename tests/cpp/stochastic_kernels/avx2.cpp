#include "cpu/lanes_avx2.h"
#include "stochastic_kernels/loop.inl"

const clr_test::StochasticKernels clr_test::avx2_stochastic_kernels = CLR_STOCHASTIC_KERNELS("avx2");
