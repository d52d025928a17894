// libcuda.so.1 for tests: the functions of the driver that clr_native calls, and no other. Each hands its name and its
// arguments to one handler, which driver.py sets; what it answers is the result. The prototypes are those of <cuda.h>.
#define _GNU_SOURCE  // RTLD_DEFAULT
#include <cuda.h>
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

typedef int (*Handler)(const char* name, const uint64_t* arguments, size_t count);
static Handler handler;

// NULL: as when a process ends and the driver is gone before those who use it.
void standin_set_handler(Handler to) { handler = to; }

// 1 if the thread that made the last call held Python's lock, which others may need before the call can end.
int standin_caller_holds_gil;

static void look_at_gil(void) {
  int (*check)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "PyGILState_Check");
  standin_caller_holds_gil = check == NULL || check();
}

#define A(argument) ((uint64_t)(uintptr_t)(argument))
#define ANSWER(...)                                     \
  const uint64_t arguments[] = {__VA_ARGS__};           \
  if (handler == NULL) return CUDA_ERROR_DEINITIALIZED; \
  look_at_gil();                                        \
  return (CUresult)handler(__func__, arguments, sizeof arguments / sizeof *arguments)

CUresult cuInit(unsigned flags) { ANSWER(A(flags)); }
CUresult cuDriverGetVersion(int* version) { ANSWER(A(version)); }
CUresult cuGetErrorName(CUresult error, const char** name) { ANSWER(A(error), A(name)); }
CUresult cuGetErrorString(CUresult error, const char** text) { ANSWER(A(error), A(text)); }

CUresult cuDeviceGetCount(int* count) { ANSWER(A(count)); }
CUresult cuDeviceGet(CUdevice* device, int ordinal) { ANSWER(A(device), A(ordinal)); }
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  ANSWER(A(value), A(attribute), A(device));
}
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) { ANSWER(A(context), A(device)); }
CUresult cuDevicePrimaryCtxRelease(CUdevice device) { ANSWER(A(device)); }
CUresult cuCtxPushCurrent(CUcontext context) { ANSWER(A(context)); }
CUresult cuCtxPopCurrent(CUcontext* context) { ANSWER(A(context)); }

CUresult cuModuleLoadData(CUmodule* module, const void* image) { ANSWER(A(module), A(image)); }
CUresult cuModuleUnload(CUmodule module) { ANSWER(A(module)); }
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  ANSWER(A(function), A(module), A(name));
}
CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void** parameters,
                        void** extra) {
  ANSWER(A(function), A(grid_x), A(grid_y), A(grid_z), A(block_x), A(block_y), A(block_z), A(shared_bytes), A(stream),
         A(parameters), A(extra));
}

CUresult cuMemAlloc(CUdeviceptr* address, size_t size) { ANSWER(A(address), A(size)); }
CUresult cuMemFree(CUdeviceptr address) { ANSWER(A(address)); }
CUresult cuMemHostAlloc(void** address, size_t size, unsigned flags) { ANSWER(A(address), A(size), A(flags)); }
CUresult cuMemFreeHost(void* address) { ANSWER(A(address)); }
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t size, CUstream stream) {
  ANSWER(A(to), A(from), A(size), A(stream));
}
CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t size, CUstream stream) {
  ANSWER(A(to), A(from), A(size), A(stream));
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size, CUstream stream) {
  ANSWER(A(to), A(value), A(size), A(stream));
}

CUresult cuStreamCreate(CUstream* stream, unsigned flags) { ANSWER(A(stream), A(flags)); }
CUresult cuStreamDestroy(CUstream stream) { ANSWER(A(stream)); }
CUresult cuStreamSynchronize(CUstream stream) { ANSWER(A(stream)); }
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) { ANSWER(A(stream), A(event), A(flags)); }
CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) { ANSWER(A(stream), A(status)); }
CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) { ANSWER(A(mode)); }

CUresult cuEventCreate(CUevent* event, unsigned flags) { ANSWER(A(event), A(flags)); }
CUresult cuEventDestroy(CUevent event) { ANSWER(A(event)); }
CUresult cuEventRecord(CUevent event, CUstream stream) { ANSWER(A(event), A(stream)); }
CUresult cuEventQuery(CUevent event) { ANSWER(A(event)); }
CUresult cuEventSynchronize(CUevent event) { ANSWER(A(event)); }
