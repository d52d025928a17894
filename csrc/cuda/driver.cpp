#include "cuda/driver.h"

#include <dlfcn.h>
#include <unistd.h>

#include <stdexcept>

namespace clr {

namespace {

class Library {
 public:
  explicit Library(const char* name) : handle_(dlopen(name, RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr) throw std::runtime_error(std::string("no CUDA driver was found: ") + dlerror());
  }

  template <class Function>
  void find(Function*& function, const char* name) const {
    function = reinterpret_cast<Function*>(dlsym(handle_, name));
    if (function == nullptr) throw std::runtime_error(std::string("the CUDA driver is too old: it has no ") + name);
  }

 private:
  void* handle_;  // never closed: the driver's threads may run until the process ends
};

}  // namespace

// Looks the symbols up by their versioned names, which cuda.h hides behind macros.
Driver::Driver() : process_(getpid()) {
  const Library library("libcuda.so.1");
  library.find(init, "cuInit");
  library.find(driver_get_version, "cuDriverGetVersion");
  library.find(device_get_count, "cuDeviceGetCount");
  library.find(device_get, "cuDeviceGet");
  library.find(device_get_attribute, "cuDeviceGetAttribute");
  library.find(primary_ctx_retain, "cuDevicePrimaryCtxRetain");
  library.find(ctx_push_current, "cuCtxPushCurrent_v2");
  library.find(ctx_pop_current, "cuCtxPopCurrent_v2");
  library.find(module_load_data, "cuModuleLoadData");
  library.find(module_get_function, "cuModuleGetFunction");
  library.find(mem_host_alloc, "cuMemHostAlloc");
  library.find(mem_free_host, "cuMemFreeHost");
  library.find(memcpy_htod_async, "cuMemcpyHtoDAsync_v2");
  library.find(memcpy_dtoh_async, "cuMemcpyDtoHAsync_v2");
  library.find(memset_d8_async, "cuMemsetD8Async");
  library.find(stream_create, "cuStreamCreate");
  library.find(stream_destroy, "cuStreamDestroy_v2");
  library.find(stream_synchronize, "cuStreamSynchronize");
  library.find(stream_wait_event, "cuStreamWaitEvent");
  library.find(stream_is_capturing, "cuStreamIsCapturing");
  library.find(thread_exchange_stream_capture_mode, "cuThreadExchangeStreamCaptureMode");
  library.find(event_create, "cuEventCreate");
  library.find(event_destroy, "cuEventDestroy_v2");
  library.find(event_record, "cuEventRecord");
  library.find(event_query, "cuEventQuery");
  library.find(event_synchronize, "cuEventSynchronize");
  library.find(launch_kernel, "cuLaunchKernel");
  library.find(get_error_name, "cuGetErrorName");
  library.find(get_error_string, "cuGetErrorString");
  check(init(0), "cuInit");
}

const Driver& Driver::get() {
  static const Driver* const driver = new Driver();  // never destroyed; tried again if it threw
  return *driver;
}

std::string Driver::why_missing() {
  try {
    get();
    return "";
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

bool Driver::is_inherited() const { return getpid() != process_; }

std::string Driver::words(CUresult result, const char* function) const {
  const char *name = nullptr, *text = nullptr;
  if (get_error_name(result, &name) != CUDA_SUCCESS) name = "an unknown error";
  if (get_error_string(result, &text) != CUDA_SUCCESS) text = "the driver does not say more";
  return std::string(function) + ": " + name + ": " + text;
}

void Driver::check(CUresult result, const char* function) const {
  if (result != CUDA_SUCCESS) throw std::runtime_error(words(result, function));
}

}  // namespace clr
