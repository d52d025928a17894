// Replaces the CUDA path in a build without it.
#include <stdexcept>

#include "cuda/device_plan.h"
#include "cuda/support.h"

namespace clr {

bool cuda_is_compiled() { return false; }

const void* cuda_image() { return nullptr; }

// cmake/cuda.cmake sets the reason.
std::string why_no_cuda() { return CLR_NATIVE_WHY_NO_CUDA; }

bool is_captured(int, void*) { throw std::runtime_error(why_no_cuda()); }

std::unique_ptr<DevicePlan> make_device_plan(int, const Host&) { throw std::runtime_error(why_no_cuda()); }

}  // namespace clr
