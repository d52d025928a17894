#include "python/optimizer/grad_scaling.h"

#include <limits>
#include <string>

#include "python/torch/group_keys.h"
#include "python/torch/tensor_checks.h"
#include "python/torch/tensor_view.h"

namespace clr {

namespace {

std::string shown(py::handle object) { return py::repr(object).cast<std::string>(); }

struct AttributeNames {
  PyObject* grad_scale = PyUnicode_InternFromString("grad_scale");
  PyObject* found_inf = PyUnicode_InternFromString("found_inf");
  PyObject* report_inf = PyUnicode_InternFromString("_report_inf");
  PyObject* fsdp_flattened = PyUnicode_InternFromString("_fsdp_flattened");
};

const AttributeNames& names() {
  static const AttributeNames n;
  return n;
}

// Returns an attribute, which any code may take away meanwhile, or null for None or for none.
py::object attribute(const py::dict& attributes, PyObject* name) {
  PyObject* const found = PyDict_GetItem(attributes.ptr(), name);  // its keys are names, of which none fails
  return py::reinterpret_borrow<py::object>(found == Py_None ? nullptr : found);
}

// Returns the first parameter of all, or null.
py::object first_parameter(const py::list& groups) {
  for (const py::handle each : groups) {
    const auto group = py::reinterpret_borrow<py::object>(each);
    const py::object params = group[keys().params];
    for (const py::handle parameter : params) return py::reinterpret_borrow<py::object>(parameter);
  }
  return {};
}

// Finds the number in a float32 tensor of one on the CPU. Returns null for any other tensor.
float* number_on_cpu(py::handle tensor) {
  const TorchReader& torch = TorchReader::get();
  DLTensor view;
  if (!torch.is_plain(tensor.ptr()) || !torch.read(tensor.ptr(), view) || !is_cpu(view.device)) return nullptr;
  const bool serves = view.ndim == 0 && known_dtype(view.dtype) == DType::float32 && !torch.is_negative(tensor.ptr());
  return serves ? static_cast<float*>(data_of(view)) : nullptr;
}

// Returns a number that a GradScaler keeps on a GPU.
DeviceNumber device_number(py::handle tensor, const char* name) {
  const DLTensor view = must_read(tensor, name);
  const Layout layout(view);
  if (layout.size() != 1 || dtype_of(layout, tensor, name) != DType::float32) {
    throw py::value_error(std::string(name) + " of " + described(tensor, "dtype") + " and " +
                          described(tensor, "shape") + " must be one torch.float32 number");
  }
  return {static_cast<float*>(data_of(view)), view.device.device_id};
}

double number(py::handle value, const char* name) {
  if (TorchReader::get().is_tensor(value.ptr())) {
    if (const float* const near = number_on_cpu(value)) return *near;
    if (value.attr("numel")().cast<std::int64_t>() != 1) {
      throw py::value_error(std::string(name) + " of " + described(value, "shape") + " must be one number");
    }
    return py::float_(value.attr("item")());
  }
  if (!PyFloat_Check(value.ptr()) && !PyLong_Check(value.ptr())) {
    throw py::type_error(std::string(name) + "=" + shown(value) + " must be a number, a tensor of one, or None");
  }
  return py::float_(py::reinterpret_borrow<py::object>(value));
}

// Returns the factor of gradients if the loss was multiplied by `grad_scale`, in float32 as in torch.
double inverse_scale(py::handle grad_scale) {
  const double scale = number(grad_scale, "grad_scale");
  const auto is_positive = [](double x) { return 0.0 < x && x <= std::numeric_limits<double>::max(); };
  if (!is_positive(scale)) throw py::value_error("grad_scale=" + shown(grad_scale) + " must be finite and above 0");
  const auto inverse = static_cast<float>(1.0 / scale);
  if (!is_positive(inverse)) {
    throw py::value_error("grad_scale=" + shown(grad_scale) +
                          " must have a reciprocal that float32 holds: call update(new_scale)");
  }
  return inverse;
}

void refuse_flat(py::handle parameter) {
  if (!parameter || !py::bool_(py::getattr(parameter, names().fsdp_flattened, py::bool_(false)))) return;
  throw std::runtime_error(
      "FullyShardedDataParallel: each process sees its own part of the gradients, and would skip by itself: use "
      "torch's ShardedGradScaler, which asks all of them, and grad_scale_in_step=False, or clr_native.GradScaler "
      "and process_group=");
}

}  // namespace

bool is_on_gpu(py::handle object) {
  const TorchReader& torch = TorchReader::get();
  DLTensor view;
  return object && torch.is_tensor(object.ptr()) && torch.read(object.ptr(), view) &&
         view.device.device_type == kDLCUDA;
}

StepRequest read_request(const py::dict& attributes, const py::list& groups) {
  StepRequest request;
  const py::object grad_scale = attribute(attributes, names().grad_scale);
  const py::object found_inf = attribute(attributes, names().found_inf);
  if (!grad_scale && !found_inf) return request;
  const py::object parameter = first_parameter(groups);
  const bool on_gpu = is_on_gpu(parameter);
  if (grad_scale) {
    if (on_gpu && is_on_gpu(grad_scale)) {
      request.grad_scale = device_number(grad_scale, "grad_scale");
    } else {
      request.scale = inverse_scale(grad_scale);
    }
    request.found_inf.reset();
  }
  if (found_inf) {
    refuse_flat(parameter);
    if (on_gpu && is_on_gpu(found_inf)) {
      request.device_found_inf = device_number(found_inf, "found_inf");
    } else {
      // Not zero, or NaN: a GradScaler adds up the results of devices and processes.
      request.found_inf = number(found_inf, "found_inf") != 0.0;
    }
  }
  const py::object report_inf = attribute(attributes, names().report_inf);
  if (on_gpu && is_on_gpu(report_inf)) request.report_inf = device_number(report_inf, "found_inf");
  return request;
}

py::object report_of(const py::dict& attributes, const StepRequest& request) {
  return request.report_inf.at != nullptr ? py::object() : attribute(attributes, names().report_inf);
}

void put_number(py::handle tensor, float number) {
  if (float* const near = number_on_cpu(tensor)) {
    *near = number;
  } else {
    tensor.attr("fill_")(number);
  }
}

}  // namespace clr
