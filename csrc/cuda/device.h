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
  CUfunction step_kernel() const { return step_; }
  CUfunction norm_kernel() const { return norm_; }

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
  static std::string why_not_loaded(CUresult result, int ordinal);

  CUcontext context_ = nullptr;
  CUfunction step_ = nullptr, norm_ = nullptr;
  unsigned multiprocessors_ = 0;
};

}  // namespace clr
