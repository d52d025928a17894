#include "cuda/memory.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace clr {

BesideCapture::BesideCapture() { Driver::get().thread_exchange_stream_capture_mode(&mode_); }
BesideCapture::~BesideCapture() { Driver::get().thread_exchange_stream_capture_mode(&mode_); }

// Destructors ignore errors: at the end of a process the driver may be gone before us. They also run during captures,
// because garbage may be collected at any time.

DeviceMemory::DeviceMemory(const Device& device, std::size_t bytes) : device_(&device), size_(bytes) {
  const Driver& driver = Driver::get();
  const Device::Current current(device);
  driver.check(driver.mem_alloc(&address_, std::max<std::size_t>(bytes, 1)), "cuMemAlloc");
}

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(address_, other.address_);
  std::swap(size_, other.size_);
  return *this;
}

DeviceMemory::~DeviceMemory() {
  if (address_ == 0) return;
  const BesideCapture beside;
  const Device::Current current(*device_);
  Driver::get().mem_free(address_);
}

PinnedMemory::PinnedMemory(const Device& device, std::size_t bytes) : device_(&device), size_(bytes) {
  const Driver& driver = Driver::get();
  const Device::Current current(device);
  driver.check(driver.mem_host_alloc(&address_, std::max<std::size_t>(bytes, 1),
                                     CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP),
               "cuMemHostAlloc");
}

PinnedMemory::PinnedMemory(PinnedMemory&& other) noexcept { *this = std::move(other); }

PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(address_, other.address_);
  std::swap(size_, other.size_);
  return *this;
}

PinnedMemory::~PinnedMemory() {
  if (address_ == nullptr) return;
  const BesideCapture beside;
  const Device::Current current(*device_);
  Driver::get().mem_free_host(address_);
}

OwnStream::~OwnStream() {
  if (stream_ == nullptr) return;
  const BesideCapture beside;
  const Device::Current current(device_);
  Driver::get().stream_destroy(stream_);
}

CUstream OwnStream::get() {
  if (stream_ == nullptr) {
    const Driver& driver = Driver::get();
    const Device::Current current(device_);
    driver.check(driver.stream_create(&stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
  }
  return stream_;
}

Staging::~Staging() {
  const BesideCapture beside;
  const Device::Current current(device_);
  for (const Area& area : areas_) {
    if (area.copied == nullptr) continue;
    Driver::get().event_synchronize(area.copied);
    Driver::get().event_destroy(area.copied);
  }
}

void Staging::copy(CUstream stream, CUdeviceptr to, const void* from, std::size_t bytes) {
  const Driver& driver = Driver::get();
  const Device::Current current(device_);
  Area& area = areas_[next_++ % areas_.size()];
  if (area.copied == nullptr) {
    driver.check(driver.event_create(&area.copied, CU_EVENT_DISABLE_TIMING), "cuEventCreate");
  } else {
    driver.check(driver.event_synchronize(area.copied), "cuEventSynchronize");
  }
  if (area.memory.size() < bytes) area.memory = PinnedMemory(device_, std::max(bytes, 2 * area.memory.size()));
  std::memcpy(area.memory.at<void>(), from, bytes);
  driver.check(driver.memcpy_htod_async(to, area.memory.at<void>(), bytes, stream), "cuMemcpyHtoDAsync");
  driver.check(driver.event_record(area.copied, stream), "cuEventRecord");
}

}  // namespace clr
