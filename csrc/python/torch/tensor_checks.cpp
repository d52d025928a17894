#include "python/torch/tensor_checks.h"

#include "cuda/support.h"

namespace clr {

void require_device(const DLDevice& device, py::handle tensor, const std::string& what) {
  if (is_cpu(device) || (device.device_type == kDLCUDA && cuda_is_compiled())) return;
  throw py::type_error(what + ": " + described(tensor, "device") + " is not supported: " +
                       (device.device_type == kDLCUDA ? why_no_cuda() : "this build runs on cpu and cuda tensors"));
}

DLTensor must_read(py::handle tensor, const std::string& what) {
  DLTensor view;
  if (!TorchReader::get().is_tensor(tensor.ptr())) {
    throw py::type_error(what + ": type=" + Py_TYPE(tensor.ptr())->tp_name + " must be a torch.Tensor");
  }
  const TorchReader& torch = TorchReader::get();
  if (!torch.read(tensor.ptr(), view) || torch.is_negative(tensor.ptr())) {
    throw py::type_error(what + ": " + why_unreadable(tensor));
  }
  return view;
}

void require_alike(const Layout& layout, DType dtype, const DLTensor& view, py::handle tensor, py::handle parameter,
                   const std::string& what) {
  Layout wanted = layout;
  wanted.dtype = dlpack_type(dtype);
  if (!same_type(wanted, view)) {
    if (!tensor.attr("device").equal(parameter.attr("device"))) {
      throw py::type_error(what + ": " + described(tensor, "device") + " must be the parameter's, " +
                           described(parameter, "device"));
    }
    const bool own = wanted.dtype.code == layout.dtype.code && wanted.dtype.bits == layout.dtype.bits;
    throw py::type_error(what + ": " + described(tensor, "dtype") + " must be " +
                         (own ? "the parameter's, " + described(parameter, "dtype")
                              : "torch." + std::string(name_of(dtype)) + ", as the group's settings say"));
  }
  if (!same_shape(layout, view)) {
    throw py::value_error(what + ": " + described(tensor, "shape") + " must be the parameter's, " +
                          described(parameter, "shape"));
  }
}

Density require_writable(const Layout& layout, py::handle tensor, const std::string& what) {
  const Density density = density_of(layout);
  if (density == Density::overlapping) {
    throw py::value_error(what + ": stride=" + py::str(tensor.attr("stride")()).cast<std::string>() + " with " +
                          described(tensor, "shape") +
                          " uses one memory place for several elements: make it dense with .contiguous()");
  }
  return density;
}

}  // namespace clr
