#include "python/optimizer/rate_tensor.h"

#include <algorithm>
#include <string>

#include "python/torch/tensor_view.h"

namespace clr {

namespace {

bool has_one_element(const DLTensor& tensor) {
  return std::all_of(tensor.shape, tensor.shape + tensor.ndim, [](std::int64_t size) { return size == 1; });
}

}  // namespace

RateOnDevice rate_on_device(py::handle lr, py::handle parameters) {
  const TorchReader& torch = TorchReader::get();
  DLTensor rate, parameter;
  if (!torch.is_tensor(lr.ptr()) || !torch.read(lr.ptr(), rate) || rate.device.device_type != kDLCUDA) return {};
  if (!PyList_Check(parameters.ptr()) || PyList_GET_SIZE(parameters.ptr()) == 0) return {};
  PyObject* const first = PyList_GET_ITEM(parameters.ptr(), 0);
  if (!torch.is_tensor(first) || !torch.read(first, parameter)) return {};
  const std::optional<DType> dtype = torch.dtype(lr.ptr());
  const bool serves = has_one_element(rate) && (dtype == DType::float32 || dtype == DType::float64);
  if (!serves || parameter.device.device_type != kDLCUDA) return {};
  if (parameter.device.device_id != rate.device.device_id) {
    throw py::value_error(
        "lr on cuda:" + std::to_string(rate.device.device_id) +
        " must lie on the device of the group's parameters, cuda:" + std::to_string(parameter.device.device_id));
  }
  return {data_of(rate), dtype == DType::float64};
}

}  // namespace clr
