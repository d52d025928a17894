#include "cuda/device.h"

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include "cuda/memory.h"
#include "cuda/support.h"

namespace clr {

Device::Current::Current(const Device& device) {
  pushed_ = Driver::get().ctx_push_current(device.context_) == CUDA_SUCCESS;
}

Device::Current::~Current() {
  CUcontext popped = nullptr;
  if (pushed_) Driver::get().ctx_pop_current(&popped);
}

const Device& Device::at(int ordinal) {
  static std::mutex mutex;
  static std::map<int, const Device*>* const devices = new std::map<int, const Device*>();
  const std::lock_guard<std::mutex> lock(mutex);
  const Device*& device = (*devices)[ordinal];
  if (device == nullptr) device = new Device(ordinal);
  return *device;
}

Device::Device(int ordinal) : ordinal_(ordinal) {
  const Driver& driver = Driver::get();
  driver.check(driver.device_get(&device_, ordinal), "cuDeviceGet");
  driver.check(driver.primary_ctx_retain(&context_, device_), "cuDevicePrimaryCtxRetain");
  int count = 0;
  driver.check(driver.device_get_attribute(&count, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device_),
               "cuDeviceGetAttribute");
  multiprocessors_ = static_cast<unsigned>(count);
  const BesideCapture beside;
  const Current current(*this);
  driver.check(driver.stream_create(&memory_stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
}

const Device::Kernels& Device::kernels() const {
  if (kernels_.norm != nullptr) return kernels_;
  const Driver& driver = Driver::get();
  const Current current(*this);
  CUmodule module = nullptr;
  const CUresult result = driver.module_load_data(&module, cuda_image());
  if (result != CUDA_SUCCESS) throw std::runtime_error(why_not_loaded(result));
  const auto find = [&](CUfunction& kernel, const char* name) {
    driver.check(driver.module_get_function(&kernel, module, name), "cuModuleGetFunction");
  };
  find(kernels_.plain[0], "clr_step_float32");
  find(kernels_.plain[1], "clr_step_float64");
  find(kernels_.plain[2], "clr_step_bfloat16");
  find(kernels_.plain[3], "clr_step_float16");
  find(kernels_.step, "clr_step");
  find(kernels_.release, "clr_release");
  find(kernels_.share, "clr_share");
  find(kernels_.norm, "clr_norm");
  return kernels_;
}

std::string Device::why_not_loaded(CUresult result) const {
  const Driver& driver = Driver::get();
  int version = 0;
  driver.driver_get_version(&version);
  const auto numbered = [](int cuda) {
    return "CUDA " + std::to_string(cuda / 1000) + "." + std::to_string(cuda % 1000 / 10);
  };
  const std::string what = driver.words(result, "cuModuleLoadData") + " (cuda:" + std::to_string(ordinal_) + ", ";
  int major = 0, minor = 0;
  const bool knows = driver.device_get_attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device_) == 0 &&
                     driver.device_get_attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device_) == 0;
  const auto capability = [](int number) { return std::to_string(number / 10) + "." + std::to_string(number % 10); };
  if (knows && 10 * major + minor < CLR_NATIVE_LEAST_CAPABILITY) {
    return what + "a GPU of compute capability " + capability(10 * major + minor) + ", where the kernels need " +
           capability(CLR_NATIVE_LEAST_CAPABILITY) + " or more)";
  }
  return what + "a driver for " + numbered(version) + "; the kernels were compiled with " + numbered(CUDA_VERSION) +
         ": update the driver, or build with an older CUDA toolkit)";
}

}  // namespace clr
