// Dense copies of tensors whose layout the kernels cannot handle.
#pragma once

#include <pybind11/pybind11.h>

#include "kernel/strided.h"
#include "python/torch/tensor_view.h"

namespace clr {

// Makes a copy of a CPU tensor in a dense layout. The memory is our own, and no function of the copy runs Python.
StridedCopy strided_copy(std::size_t slot, const DLTensor& view, const Layout& dense, StridedCopy::Use use);

// A copy of a tensor on a device, in the layout that `like` would have without gaps. torch does the copying.
class DeviceCopy {
 public:
  DeviceCopy(py::object original, py::handle like, StridedCopy::Use use);

  void* data() const { return data_; }
  // Writes the copy back into the original if `use` says that the copy is written.
  void put_back() const;

 private:
  py::object original_, tensor_;
  void* data_;
  StridedCopy::Use use_;
};

}  // namespace clr
