// Embeds the kernels, as compiled by nvcc, in this library.
#include "cuda/driver.h"
#include "cuda/support.h"

// The section in which tools of the CUDA toolkit look for the image.
__asm__(
    ".section .nv_fatbin, \"a\"\n"
    ".balign 16\n"
    ".globl clr_native_cuda_image\n"
    ".hidden clr_native_cuda_image\n"
    "clr_native_cuda_image:\n"
    ".incbin \"" CLR_NATIVE_CUDA_IMAGE
    "\"\n"
    ".text\n");
extern "C" __attribute__((visibility("hidden"))) const char clr_native_cuda_image[];

namespace clr {

bool cuda_is_compiled() { return true; }

const void* cuda_image() { return clr_native_cuda_image; }

std::string why_no_cuda() {
  if (std::string missing = Driver::why_missing(); !missing.empty()) return missing;
  const Driver& driver = Driver::get();
  int count = 0;
  const CUresult result = driver.device_get_count(&count);
  if (result != CUDA_SUCCESS) return driver.words(result, "cuDeviceGetCount");
  return count == 0 ? "the CUDA driver sees no device" : "";
}

}  // namespace clr
