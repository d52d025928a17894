// Memory of a device, memory of the host that the device reads and writes, and copies that nobody waits for.
#pragma once

#include <array>
#include <cstddef>

#include "cuda/device.h"

namespace clr {

// While it lives, this thread may do what must not become part of a graph that a stream is captured in, nor spoil it.
class BesideCapture {
 public:
  BesideCapture();
  BesideCapture(const BesideCapture&) = delete;
  BesideCapture& operator=(const BesideCapture&) = delete;
  ~BesideCapture();

 private:
  CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
};

// Bytes of a device. Freeing them waits for what runs there.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(const Device& device, std::size_t bytes);
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
  const Device* device_ = nullptr;
  CUdeviceptr address_ = 0;
  std::size_t size_ = 0;
};

// Bytes of the host, at an address that holds on all devices.
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

// A stream of our own, beside those that are captured.
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

// Copies to the device from anywhere: what is copied may change at once. Waits only where all of a few copies before
// are still under way.
class Staging {
 public:
  explicit Staging(const Device& device) : device_(device) {}
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging();

  void copy(CUstream stream, CUdeviceptr to, const void* from, std::size_t bytes);

 private:
  struct Area {
    PinnedMemory memory;
    CUevent copied = nullptr;
  };

  const Device& device_;
  std::array<Area, 4> areas_;
  std::size_t next_ = 0;
};

}  // namespace clr
