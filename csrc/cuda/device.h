// A CUDA device: its primary context, which torch uses too, and our kernels in it.
#pragma once

#include "cuda/driver.h"

namespace clr {

class Device {
 public:
  // Returns the device with this number, which lives until the process ends. Throws std::runtime_error with the
  // driver's words.
  static const Device& at(int ordinal);

  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  int ordinal() const { return ordinal_; }
  unsigned multiprocessors() const { return multiprocessors_; }
  // Returns the stream for which memory is taken. It is never captured, and nothing is put into it.
  CUstream memory_stream() const { return memory_stream_; }

  struct Kernels {
    CUfunction plain[4];  // plain updates of one dtype, by its number
    CUfunction step;      // all other updates
    CUfunction release;   // of one parameter
    CUfunction norm, share;
  };
  // Returns the kernels. The first call loads them, and must not be made during a capture.
  const Kernels& kernels() const;

  // Makes a device's context current on this thread while the object lives. If that fails, the driver calls that follow
  // report it.
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
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  CUstream memory_stream_ = nullptr;
  mutable Kernels kernels_ = {};
  unsigned multiprocessors_ = 0;
};

}  // namespace clr
