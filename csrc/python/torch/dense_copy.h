// Dense copies in the place of tensors that a kernel cannot go through.
#pragma once

#include <pybind11/pybind11.h>

#include "kernel/strided.h"
#include "python/torch/tensor_view.h"

namespace clr {

// A copy of a tensor on this processor, in a dense layout. Its memory is our own, and nothing of it runs Python.
StridedCopy strided_copy(std::size_t slot, const DLTensor& view, const Layout& dense, StridedCopy::Use use);

// A copy of a tensor on a device, laid out as `like` would be without gaps. torch copies.
class DeviceCopy {
 public:
  DeviceCopy(py::object original, py::handle like, StridedCopy::Use use);

  void* data() const { return data_; }
  // Writes the copy back into the original, if the use says that it is written.
  void put_back() const;

 private:
  py::object original_, tensor_;
  void* data_;
  StridedCopy::Use use_;
};

}  // namespace clr
