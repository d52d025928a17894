// What a tensor of a step must be. Each throws TypeError or ValueError that says what it is instead.
#pragma once

#include <string>

#include "python/torch/tensor_view.h"

namespace clr {

inline bool is_cpu(const DLDevice& device) { return device.device_type == kDLCPU || device.device_type == kDLCUDAHost; }

// Throws unless this build updates tensors there.
void require_device(const DLDevice& device, py::handle tensor, const std::string& what);

inline std::string parameter_name(std::size_t group, std::size_t index) {
  return "parameter " + std::to_string(index) + " of group " + std::to_string(group);
}

// Reads `what`.
DLTensor must_read(py::handle tensor, const std::string& what);

// Throws unless `tensor`, the gradient or state `what` of `parameter`, has its shape and device, and this dtype.
void require_alike(const Layout& layout, DType dtype, const DLTensor& view, py::handle tensor, py::handle parameter,
                   const std::string& what);

// How dense a layout of `tensor` is. Throws where one memory place is several elements: none of them can be written.
Density require_writable(const Layout& layout, py::handle tensor, const std::string& what);

}  // namespace clr
