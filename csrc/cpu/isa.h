// Which instruction sets this build has, which this processor has, and which one is used.
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

// The instruction sets compiled in, from plain to wide.
const std::vector<Isa>& compiled_isas();

// The widest detected one, or the one that the environment variable CLR_NATIVE_ISA names. Decided at the first call.
// Throws std::invalid_argument if the named one is not there.
const Isa& selected_isa();

// What selected_isa decides, for a given value of the variable (null or empty: not set).
const Isa& choose_isa(const char* wanted);

}  // namespace clr
