// The checks of a step's tensors. Each check throws a TypeError or ValueError that says how the tensor differs.
#pragma once

#include <string>

#include "python/torch/tensor_view.h"

namespace clr {

inline bool is_cpu(const DLDevice& device) { return device.device_type == kDLCPU || device.device_type == kDLCUDAHost; }

// Throws unless this build can update tensors on that device.
void require_device(const DLDevice& device, py::handle tensor, const std::string& what);

inline std::string parameter_name(std::size_t group, std::size_t index) {
  return "parameter " + std::to_string(index) + " of group " + std::to_string(group);
}

// Reads a tensor, which errors call `what`.
DLTensor must_read(py::handle tensor, const std::string& what);

// Throws unless `tensor`, the gradient or state `what` of `parameter`, has its shape and device, and this dtype.
void require_alike(const Layout& layout, DType dtype, const DLTensor& view, py::handle tensor, py::handle parameter,
                   const std::string& what);

// Returns how dense a layout of `tensor` is. Throws if several elements share one memory place: they cannot be written.
Density require_writable(const Layout& layout, py::handle tensor, const std::string& what);

}  // namespace clr
