// Memory of a device, memory of the host that the device reads and writes, and asynchronous copies.
#pragma once

#include <array>
#include <cstddef>

#include "cuda/device.h"
#include "cuda/host.h"

namespace clr {

// While this object lives, calls of this thread neither become part of a graph that is being captured nor invalidate
// the capture.
class BesideCapture {
 public:
  BesideCapture();
  BesideCapture(const BesideCapture&) = delete;
  BesideCapture& operator=(const BesideCapture&) = delete;
  ~BesideCapture();

 private:
  CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
};

// Memory of a device, from the host's allocator. All work that uses it must be done when it is given back.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(const Device& device, const Host& host, std::size_t bytes);
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;
  ~DeviceMemory();

  std::size_t size() const { return size_; }
  CUdeviceptr address() const { return address_; }
  template <class T>
  T* at(std::size_t byte = 0) const {
    const CUdeviceptr there = address_ + byte;
    return reinterpret_cast<T*>(there);  // NOLINT(performance-no-int-to-ptr): the driver's addresses are numbers
  }

 private:
  const Host* host_ = nullptr;
  CUdeviceptr address_ = 0;
  std::size_t size_ = 0;
};

// Pinned memory of the host, at an address that is valid on all devices.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(const Device& device, std::size_t bytes);
  PinnedMemory(PinnedMemory&& other) noexcept;
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;
  ~PinnedMemory();

  std::size_t size() const { return size_; }
  template <class T>
  T* at(std::size_t byte = 0) const {
    return reinterpret_cast<T*>(static_cast<char*>(address_) + byte);
  }

 private:
  const Device* device_ = nullptr;
  void* address_ = nullptr;
  std::size_t size_ = 0;
};

// A stream of our own, which is never captured.
class OwnStream {
 public:
  explicit OwnStream(const Device& device) : device_(device) {}
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  ~OwnStream();

  CUstream get();  // made when first asked for

 private:
  const Device& device_;
  CUstream stream_ = nullptr;
};

// Marks a place in a stream, made when it is first marked.
class Event {
 public:
  explicit Event(const Device& device) : device_(&device) {}
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event();

  void record(CUstream stream);
  // The work that comes into a stream from now on waits for the place that was marked last, if any was.
  void hold_up(CUstream stream) const;
  // Returns cuEventSynchronize's answer.
  CUresult wait(Wait how) const;

 private:
  const Device* device_;
  CUevent event_ = nullptr;
};

// Copies to the device from any host memory, which may change as soon as copy() returns. copy() waits only if all
// staging areas are still in use by copies before it.
class Staging {
 public:
  Staging(const Device& device, const Host& host)
      : device_(device), host_(host), areas_{Area(device), Area(device), Area(device), Area(device)} {}
  void copy(CUstream stream, CUdeviceptr to, const void* from, std::size_t bytes);
  // Waits for all copies. Call this before the object goes.
  void finish() const;

 private:
  struct Area {
    explicit Area(const Device& device) : copied(device) {}

    PinnedMemory memory;
    Event copied;
  };

  const Device& device_;
  const Host& host_;
  std::array<Area, 4> areas_;
  std::size_t next_ = 0;
};

}  // namespace clr
