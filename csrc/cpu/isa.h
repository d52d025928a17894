// The instruction sets that this build has and that this processor has, and the one in use.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace clr {

struct Isa {
  const char* name;
  const CpuKernels* kernels;
  bool detected;
};

// Returns the compiled instruction sets, from plain to wide.
const std::vector<Isa>& compiled_isas();

// Returns the widest detected instruction set, or the one that the environment variable CLR_NATIVE_ISA names. The first
// call decides. Throws std::invalid_argument if the named one is not available.
const Isa& selected_isa();

// Returns the choice of selected_isa() for a given value of the variable (null or empty: not set).
const Isa& choose_isa(const char* wanted);

}  // namespace clr
