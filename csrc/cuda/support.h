// Tells whether this build has a CUDA path, and whether it can be used on this machine.
#pragma once

#include <string>

namespace clr {

bool cuda_is_compiled();

// Returns the reason why CUDA devices cannot be used: no kernels in this build, no driver, no device. Empty if they can
// be used. The first call looks for the driver.
std::string why_no_cuda();

// Returns the kernels, compiled for all architectures, in the form that the driver loads.
const void* cuda_image();

}  // namespace clr
