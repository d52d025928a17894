// The memory of one optimizer's tables on one device, and what the host puts there.
#pragma once

#include <cstddef>
#include <deque>

#include "cuda/memory.h"

namespace clr {

// Memory that a launch has used is kept as long as this object, because a graph may replay the launch.
class DeviceTables {
 public:
  DeviceTables(const Device& device, const Host& host);

  const Device& device() const { return device_; }

  // Enlarges `memory` if it is too small. Its contents are then lost.
  void grow(DeviceMemory& memory, std::size_t bytes);
  // Both put their work into `stream`. `from` may change as soon as copy() returns.
  void copy(CUstream stream, CUdeviceptr to, const void* from, std::size_t bytes);
  void clear(CUstream stream, CUdeviceptr at, std::size_t bytes);

  // Returns a stream of ours, which is never captured.
  CUstream beside() { return beside_.get(); }
  void wait_for_beside();

  // Waits for all copies and for the place that was marked last. Call this before the memory is given back.
  void finish(const Event& last) const;

 private:
  const Device& device_;
  const Host& host_;
  OwnStream beside_;
  Staging staging_;
  std::deque<DeviceMemory> retired_;  // outgrown memory that a graph may still use
};

}  // namespace clr
