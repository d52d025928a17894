// A CUDA device: its primary context, which is the one that torch works in, and our kernels in it.
#pragma once

#include "cuda/driver.h"

namespace clr {

class Device {
 public:
  // The device with this number. Kept until the process ends. Throws std::runtime_error with the driver's words.
  static const Device& at(int ordinal);

  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  unsigned multiprocessors() const { return multiprocessors_; }

  struct Kernels {
    CUfunction step, norm;
  };
  // Loaded when first asked for, which must not be in a capture.
  const Kernels& kernels() const;

  // Makes a device's context the current one of this thread, as long as it lives. Should that fail, what is called then
  // says so.
  class Current {
   public:
    explicit Current(const Device& device);
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;
    ~Current();

   private:
    bool pushed_;
  };

 private:
  explicit Device(int ordinal);
  std::string why_not_loaded(CUresult result) const;

  int ordinal_;
  CUcontext context_ = nullptr;
  mutable Kernels kernels_ = {nullptr, nullptr};
  unsigned multiprocessors_ = 0;
};

}  // namespace clr
