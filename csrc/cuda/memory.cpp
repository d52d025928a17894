#include "cuda/memory.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace clr {

BesideCapture::BesideCapture() { Driver::get().thread_exchange_stream_capture_mode(&mode_); }
BesideCapture::~BesideCapture() { Driver::get().thread_exchange_stream_capture_mode(&mode_); }

// Destructors ignore errors: at the end of a process the driver may be gone before us. They also run during captures,
// because garbage may be collected at any time, and in forked children, which leave the driver alone.

DeviceMemory::DeviceMemory(const Device& device, const Host& host, std::size_t bytes) : host_(&host), size_(bytes) {
  const BesideCapture beside;
  address_ = host.take_memory(device.ordinal(), std::max<std::size_t>(bytes, 1), device.memory_stream());
}

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(host_, other.host_);
  std::swap(address_, other.address_);
  std::swap(size_, other.size_);
  return *this;
}

DeviceMemory::~DeviceMemory() {
  if (address_ == 0 || Driver::get().is_inherited()) return;
  const BesideCapture beside;
  host_->give_back_memory(address_);
}

PinnedMemory::PinnedMemory(const Device& device, std::size_t bytes) : device_(&device), size_(bytes) {
  const Driver& driver = Driver::get();
  const BesideCapture beside;
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
  if (address_ == nullptr || Driver::get().is_inherited()) return;
  const BesideCapture beside;
  const Device::Current current(*device_);
  Driver::get().mem_free_host(address_);
}

OwnStream::~OwnStream() {
  if (stream_ == nullptr || Driver::get().is_inherited()) return;
  const BesideCapture beside;
  const Device::Current current(device_);
  Driver::get().stream_destroy(stream_);
}

CUstream OwnStream::get() {
  if (stream_ == nullptr) {
    const Driver& driver = Driver::get();
    const BesideCapture beside;
    const Device::Current current(device_);
    driver.check(driver.stream_create(&stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
  }
  return stream_;
}

Event::~Event() {
  if (event_ == nullptr || Driver::get().is_inherited()) return;
  const BesideCapture beside;
  const Device::Current current(*device_);
  Driver::get().event_destroy(event_);
}

void Event::record(CUstream stream) {
  const Driver& driver = Driver::get();
  const Device::Current current(*device_);
  if (event_ == nullptr) driver.check(driver.event_create(&event_, CU_EVENT_DISABLE_TIMING), "cuEventCreate");
  driver.check(driver.event_record(event_, stream), "cuEventRecord");
}

void Event::hold_up(CUstream stream) const {
  if (event_ == nullptr) return;
  const Driver& driver = Driver::get();
  const Device::Current current(*device_);
  driver.check(driver.stream_wait_event(stream, event_, CU_EVENT_WAIT_DEFAULT), "cuStreamWaitEvent");
}

CUresult Event::wait(Wait how) const {
  const Driver& driver = Driver::get();
  const Device::Current current(*device_);
  if (event_ == nullptr || driver.event_query(event_) == CUDA_SUCCESS) return CUDA_SUCCESS;
  CUresult result = CUDA_SUCCESS;
  how([&] { result = driver.event_synchronize(event_); });
  return result;
}

void Staging::copy(CUstream stream, CUdeviceptr to, const void* from, std::size_t bytes) {
  const Driver& driver = Driver::get();
  const Device::Current current(device_);
  const BesideCapture beside;
  Area& area = areas_[next_++ % areas_.size()];
  driver.check(area.copied.wait(host_.wait), "cuEventSynchronize");
  if (area.memory.size() < bytes) area.memory = PinnedMemory(device_, std::max(bytes, 2 * area.memory.size()));
  std::memcpy(area.memory.at<void>(), from, bytes);
  driver.check(driver.memcpy_htod_async(to, area.memory.at<void>(), bytes, stream), "cuMemcpyHtoDAsync");
  area.copied.record(stream);
}

void Staging::finish() const {
  for (const Area& area : areas_) area.copied.wait(host_.wait);
}

}  // namespace clr
