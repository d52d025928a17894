#include "python/state_tensor.h"

namespace clr {

PyObject* StateTensor::found_in(PyObject* state) const {
  PyObject* const found = state != nullptr ? PyDict_GetItemWithError(state, key_) : nullptr;
  return found == Py_None ? nullptr : found;
}

bool StateTensor::find(PyObject* state, DType dtype, const StateOwner& owner) {
  PyObject* const found = found_in(state);
  if (found != nullptr && found == tensor_.ptr()) return true;
  tensor_ = py::object();
  data_ = nullptr;
  if (found == nullptr) return false;
  adopt(py::reinterpret_borrow<py::object>(found), dtype, owner);
  return true;
}

void StateTensor::adopt(py::object tensor, DType dtype, const StateOwner& owner) {
  const TorchReader& torch = TorchReader::get();
  const std::string what = owner.name() + ", " + py::str(key_).cast<std::string>();
  const DLTensor view = must_read(tensor, what);
  require_alike(owner.layout, dtype, view, tensor, owner.parameter, what);
  Layout wanted = owner.layout;
  if (owner.density != Density::dense) wanted = Layout(must_read(torch.empty_like(owner.parameter), what));
  if (same_strides(wanted, view)) {
    data_ = data_of(view);
    tensor_ = std::move(tensor);
    return;
  }
  fresh_ = torch.empty_like(owner.parameter, dtype);
  torch.copy(fresh_, tensor);
  data_ = data_of(must_read(fresh_, what));
}

void StateTensor::make(DType dtype, const StateOwner& owner, Content content) {
  const TorchReader& torch = TorchReader::get();
  tensor_ = py::object();
  fresh_ = torch.empty_like(owner.parameter, dtype);
  // Whether a device has written it, the host cannot know: nobody must find garbage there.
  if (content == Content::zeros || (content == Content::none && !is_cpu(owner.layout.device))) fresh_.attr("zero_")();
  if (content == Content::parameter) torch.copy(fresh_, owner.parameter);
  data_ = data_of(must_read(fresh_, owner.name()));
}

void StateTensor::write(const py::dict& state) {
  if (!fresh_) return;
  state[py::handle(key_)] = fresh_;
  tensor_ = std::move(fresh_);
}

}  // namespace clr
