// The stochastic kernels of the instruction sets that this processor can run.
#pragma once

#include <vector>

#include "support/isas.h"
#include "support/stochastic_kernels.h"

namespace clr_test {

inline std::vector<StochasticKernels> testable_stochastic_kernels() {
  std::vector<StochasticKernels> testable;
  const StochasticKernels* const compiled[] = {
      &baseline_stochastic_kernels,
#if defined(CLR_NATIVE_X86)
      &avx2_stochastic_kernels,
      &avx512_stochastic_kernels,
#endif
#if defined(CLR_NATIVE_NEON)
      &neon_stochastic_kernels,
#endif
  };
  for (const clr::Isa& isa : testable_isas()) {
    for (const StochasticKernels* const kernels : compiled) {
      if (std::string(isa.name) == kernels->isa) testable.push_back(*kernels);
    }
  }
  return testable;
}

}  // namespace clr_test
