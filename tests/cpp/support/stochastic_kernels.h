// The random numbers and stochastic stores of every instruction set by themselves, in blocks, lanes and a tail as the
// update takes them. Their translation units have an instruction set's flags and include nothing from the C++ library.
#pragma once

#include <stdint.h>

namespace clr_test {

struct StochasticKernels {
  const char* isa;
  // random_bits(key, first + i) for 0 <= i < count.
  void (*random_bits)(uint64_t key, uint64_t first, int64_t count, uint32_t* to);
  // Numbers rounded with the random bits given beside them, to encodings.
  void (*to_bfloat16)(const float* from, const uint32_t* random, int64_t count, uint16_t* to);
  void (*to_float16)(const float* from, const uint32_t* random, int64_t count, uint16_t* to);
};

extern const StochasticKernels baseline_stochastic_kernels;
#if defined(CLR_NATIVE_X86)
extern const StochasticKernels avx2_stochastic_kernels, avx512_stochastic_kernels;
#endif
#if defined(CLR_NATIVE_NEON)
extern const StochasticKernels neon_stochastic_kernels;
#endif

}  // namespace clr_test
