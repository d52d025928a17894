// The instruction sets that this build has and this processor can run.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "cpu/isa.h"

namespace clr_test {

inline std::vector<clr::Isa> testable_isas() {
  std::vector<clr::Isa> isas;
  for (const clr::Isa& isa : clr::compiled_isas()) {
    if (isa.detected) {
      isas.push_back(isa);
    } else {
      MESSAGE("not tested: this processor has no ", std::string(isa.name));
    }
  }
  return isas;
}

// The baseline has no fma and rounds twice; all others give one another's bits.
inline bool has_fma(const clr::Isa& isa) { return std::string(isa.name) != "baseline"; }

}  // namespace clr_test
