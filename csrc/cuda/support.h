// Is there a CUDA path in this build, and can it be used here?
#pragma once

#include <string>

namespace clr {

bool cuda_is_compiled();

// Why CUDA devices cannot be used: no kernels in this build, no driver, no device. Empty if they can. Looks for the
// driver when first asked.
std::string why_no_cuda();

// The kernels, compiled for all architectures, as the driver loads them.
const void* cuda_image();

}  // namespace clr
