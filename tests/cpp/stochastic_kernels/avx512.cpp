#include "cpu/lanes_avx512.h"

#define CLR_LANES_PER_BLOCK 4
#include "stochastic_kernels/loop.inl"

const clr_test::StochasticKernels clr_test::avx512_stochastic_kernels = CLR_STOCHASTIC_KERNELS("avx512");
