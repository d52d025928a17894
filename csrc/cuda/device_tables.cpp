#include "cuda/device_tables.h"

#include <algorithm>
#include <utility>

namespace clr {

DeviceTables::DeviceTables(const Device& device, const Host& host)
    : device_(device), host_(host), beside_(device), staging_(device, host) {}

void DeviceTables::grow(DeviceMemory& memory, std::size_t bytes) {
  if (memory.size() >= bytes) return;
  DeviceMemory larger(device_, host_, std::max(bytes, 2 * memory.size()));
  if (memory.size() != 0) retired_.push_back(std::move(memory));
  memory = std::move(larger);
}

void DeviceTables::copy(CUstream stream, CUdeviceptr to, const void* from, std::size_t bytes) {
  if (bytes != 0) staging_.copy(stream, to, from, bytes);
}

void DeviceTables::clear(CUstream stream, CUdeviceptr at, std::size_t bytes) {
  if (bytes == 0) return;
  const Driver& driver = Driver::get();
  const Device::Current current(device_);
  driver.check(driver.memset_d8_async(at, 0, bytes, stream), "cuMemsetD8Async");
}

void DeviceTables::wait_for_beside() {
  const Driver& driver = Driver::get();
  CUresult result = CUDA_SUCCESS;
  host_.wait([&] { result = driver.stream_synchronize(beside()); });
  driver.check(result, "cuStreamSynchronize");
}

void DeviceTables::finish(const Event& last) const {
  if (Driver::get().is_inherited()) return;
  const BesideCapture beside;
  staging_.finish();
  last.wait(host_.wait);
}

}  // namespace clr
