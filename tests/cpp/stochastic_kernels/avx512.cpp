#include "cpu/lanes_avx512.h"
#include "stochastic_kernels/loop.inl"

const clr_test::StochasticKernels clr_test::avx512_stochastic_kernels = CLR_STOCHASTIC_KERNELS("avx512");
