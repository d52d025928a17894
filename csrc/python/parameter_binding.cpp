#include "python/parameter_binding.h"

#include "python/dict_version.h"

namespace clr {

namespace {

PyObject* buffer_key() {
  static PyObject* const key = PyUnicode_InternFromString("momentum_buffer");
  return key;
}

bool is_cpu(const DLDevice& device) { return device.device_type == kDLCPU || device.device_type == kDLCUDAHost; }

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

// Throws unless `tensor`, the gradient or buffer `what` of `parameter`, has its shape, dtype and device.
void require_alike(const Layout& layout, const DLTensor& view, py::handle tensor, py::handle parameter,
                   const std::string& what) {
  if (!same_type(layout, view)) {
    const char* const attribute = tensor.attr("device").equal(parameter.attr("device")) ? "dtype" : "device";
    throw py::type_error(what + ": " + described(tensor, attribute) + " must be the parameter's, " +
                         described(parameter, attribute));
  }
  if (!same_shape(layout, view)) {
    throw py::value_error(what + ": " + described(tensor, "shape") + " must be the parameter's, " +
                          described(parameter, "shape"));
  }
}

}  // namespace

bool SeenTensors::Tensor::is(PyObject* object, void* at) const {
  if (at != data || !reference) return false;
#if PY_VERSION_HEX >= 0x030d0000
  PyObject* seen = nullptr;
  if (PyWeakref_GetRef(reference.ptr(), &seen) < 0) throw py::error_already_set();
  Py_XDECREF(seen);
  return seen == object;
#else
  return PyWeakref_GetObject(reference.ptr()) == object;
#endif
}

void Held::clear() {
  tensors.clear();
  copies.clear();
}

ParameterBinding::ParameterBinding(py::object parameter, std::uint32_t group, std::size_t index)
    : parameter_(std::move(parameter)), group_(group), index_(index) {}

std::string ParameterBinding::name() const {
  return "parameter " + std::to_string(index_) + " of group " + std::to_string(group_);
}

void ParameterBinding::relayout(const DLTensor& view) {
  const Layout layout(view);
  if (!is_cpu(layout.device)) {
    throw py::type_error(name() + ": " + described(parameter_, "device") +
                         " is not supported: this build runs on cpu tensors");
  }
  const DType dtype = dtype_of(layout, parameter_, name());
  const Density density = density_of(layout);
  if (density == Density::overlapping) {
    throw py::value_error(name() + ": stride=" + py::str(parameter_.attr("stride")()).cast<std::string>() + " with " +
                          described(parameter_, "shape") +
                          " uses one memory place for several elements: make it dense with .contiguous()");
  }
  layout_ = layout;
  dtype_ = dtype;
  density_ = density;
  size_ = layout.size();
  buffer_ = py::object();  // to be looked at anew
  seen_ = true;
}

void ParameterBinding::require_plain(PyObject* tensor, const char* role) const {
  if (TorchReader::get().is_negative(tensor)) throw py::type_error(name() + role + ": " + why_unreadable(tensor));
}

// The gradient in the parameter's layout: itself, or a copy.
py::object ParameterBinding::readable_gradient(py::object grad, DLTensor& view) {
  const TorchReader& torch = TorchReader::get();
  if (!torch.read(grad.ptr(), view)) throw py::type_error(name() + ", gradient: " + why_unreadable(grad));
  // A single element is always asked about: autograd itself hands out lazy negatives of that size.
  if (size_ == 1 || !seen_gradients_.has(grad.ptr(), data_of(view))) {
    require_plain(grad.ptr(), ", gradient");
    seen_gradients_.add(grad.ptr(), data_of(view));
  }
  if (is_exactly(layout_, view) && density_ == Density::dense) return grad;
  require_alike(layout_, view, grad, parameter_, name() + ", gradient");
  if (same_strides(layout_, view) && density_ == Density::dense) return grad;
  py::object copy = torch.empty_like(parameter_);
  torch.copy(copy, grad);
  torch.read(copy.ptr(), view);
  return copy;
}

// Points buffer_data_ to the buffer in state, or to a copy of it where its layout is not the parameter's.
void ParameterBinding::adopt_buffer(py::object buffer) {
  const TorchReader& torch = TorchReader::get();
  const std::string what = name() + ", momentum_buffer";
  const DLTensor view = must_read(buffer, what);
  require_alike(layout_, view, buffer, parameter_, what);
  Layout wanted = layout_;
  if (density_ != Density::dense) wanted = Layout(must_read(torch.empty_like(parameter_), what));
  if (same_strides(wanted, view)) {
    buffer_data_ = data_of(view);
    buffer_ = std::move(buffer);
    return;
  }
  new_buffer_ = torch.empty_like(parameter_);
  torch.copy(new_buffer_, buffer);
  buffer_data_ = data_of(must_read(new_buffer_, what));
}

// Leaves buffer_data_ pointing to the buffer to use, null for none. Returns whether it holds nothing yet.
bool ParameterBinding::read_buffer(bool wanted) {
  const std::uint64_t version = state_ ? version_of(state_.ptr()) : 0;
  if (buffer_ && version != 0 && version == state_version_) return false;
  PyObject* found = state_ ? PyDict_GetItemWithError(state_.ptr(), buffer_key()) : nullptr;
  if (found == Py_None) found = nullptr;
  if (found != nullptr && found == buffer_.ptr()) {
    state_version_ = version;
    return false;
  }
  void* const before = buffer_data_;
  buffer_ = py::object();
  buffer_data_ = nullptr;
  if (found != nullptr) {
    adopt_buffer(py::reinterpret_borrow<py::object>(found));
  } else if (wanted) {
    new_buffer_ = TorchReader::get().empty_like(parameter_);
    buffer_data_ = data_of(must_read(new_buffer_, name() + ", momentum_buffer"));
  }
  moved_ = moved_ || buffer_data_ != before;
  return found == nullptr;
}

bool ParameterBinding::read(bool group_keeps_buffers, StepPlan& plan, Held& held) {
  const TorchReader& torch = TorchReader::get();
  new_buffer_ = py::object();
  py::object grad = torch.grad(parameter_.ptr());
  if (!grad) return false;
  DLTensor view;
  if (!torch.read(parameter_.ptr(), view)) throw py::type_error(name() + ": " + why_unreadable(parameter_));
  const bool other_layout = !seen_ || !is_exactly(layout_, view);
  if (other_layout) relayout(view);
  moved_ = other_layout || data_ != data_of(view);
  if (moved_ || size_ == 1) require_plain(parameter_.ptr(), "");
  data_ = data_of(view);
  const bool first = read_buffer(group_keeps_buffers);

  DLTensor gradient;
  held.tensors.push_back(readable_gradient(std::move(grad), gradient));
  Slot slot = {data_, data_of(gradient), buffer_data_, size_, group_, dtype_, first};
  if (density_ == Density::gapped) {
    py::object dense = torch.empty_like(parameter_);
    torch.copy(dense, parameter_);
    slot.parameter = data_of(must_read(dense, name()));
    plan.copied.push_back({data_, static_cast<const char*>(data_) + layout_.span_bytes()});
    held.copies.push_back({plan.slots.size(), parameter_, std::move(dense)});
  }
  plan.slots.push_back(slot);
  return true;
}

void ParameterBinding::write(const py::dict& optimizer_state) {
  if (!new_buffer_) return;
  py::object state = state_ ? state_ : py::dict();
  state[py::handle(buffer_key())] = new_buffer_;
  optimizer_state[parameter_] = state;
  bind_state(state.ptr());
  buffer_ = std::move(new_buffer_);
}

int ParameterBinding::traverse(visitproc visit, void* arg) const {
  Py_VISIT(parameter_.ptr());
  Py_VISIT(state_.ptr());
  Py_VISIT(buffer_.ptr());
  return 0;
}

}  // namespace clr
