// What device code asks of torch and of Python.
#pragma once

#include "cuda/host.h"

namespace clr {

// Returns torch's current streams and torch's allocator. Waits let other threads of Python run. All of its functions
// need the GIL.
const Host& torch_host();

}  // namespace clr
