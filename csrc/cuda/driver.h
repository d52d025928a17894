// The CUDA driver, found at run time: this library is not linked against any CUDA library.
#pragma once

#include <cuda.h>
#include <sys/types.h>

#include <string>

namespace clr {

// The functions of libcuda.so.1 that are used, under the names of the driver API.
class Driver {
 public:
  // Returns the driver. The first call loads and initialises it. Throws std::runtime_error that says why it cannot be
  // used.
  static const Driver& get();
  // Returns the reason why the driver cannot be used; empty if it can.
  static std::string why_missing();

  // Returns the driver's own words: "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY: out of memory".
  std::string words(CUresult result, const char* function) const;
  // True in a child of the process that initialised the driver: nothing of the driver's may be touched there.
  bool is_inherited() const;
  // Throws std::runtime_error with the driver's words unless the result is success.
  void check(CUresult result, const char* function) const;

  decltype(&cuInit) init;
  decltype(&cuDriverGetVersion) driver_get_version;
  decltype(&cuDeviceGetCount) device_get_count;
  decltype(&cuDeviceGet) device_get;
  decltype(&cuDeviceGetAttribute) device_get_attribute;
  decltype(&cuDevicePrimaryCtxRetain) primary_ctx_retain;
  decltype(&cuCtxPushCurrent) ctx_push_current;
  decltype(&cuCtxPopCurrent) ctx_pop_current;
  decltype(&cuModuleLoadData) module_load_data;
  decltype(&cuModuleGetFunction) module_get_function;
  decltype(&cuMemHostAlloc) mem_host_alloc;
  decltype(&cuMemFreeHost) mem_free_host;
  decltype(&cuMemcpyHtoDAsync) memcpy_htod_async;
  decltype(&cuMemcpyDtoHAsync) memcpy_dtoh_async;
  decltype(&cuMemsetD8Async) memset_d8_async;
  decltype(&cuStreamCreate) stream_create;
  decltype(&cuStreamDestroy) stream_destroy;
  decltype(&cuStreamSynchronize) stream_synchronize;
  decltype(&cuStreamWaitEvent) stream_wait_event;
  decltype(&cuStreamIsCapturing) stream_is_capturing;
  decltype(&cuThreadExchangeStreamCaptureMode) thread_exchange_stream_capture_mode;
  decltype(&cuEventCreate) event_create;
  decltype(&cuEventDestroy) event_destroy;
  decltype(&cuEventRecord) event_record;
  decltype(&cuEventQuery) event_query;
  decltype(&cuEventSynchronize) event_synchronize;
  decltype(&cuLaunchKernel) launch_kernel;
  decltype(&cuGetErrorName) get_error_name;
  decltype(&cuGetErrorString) get_error_string;

 private:
  Driver();

  pid_t process_;
};

}  // namespace clr
