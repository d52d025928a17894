#include "python/torch/state_tensor.h"

namespace clr {

// Returns the tensor in the state, borrowed. Returns null if there is none, or if it is None.
PyObject* StateTensor::found_in(const WatchedDict& state) {
  if (!state) return nullptr;
  const std::uint64_t version = state.version();
  if (version != 0 && version == version_ && tensor_) return tensor_.ptr();
  PyObject* const found = PyDict_GetItemWithError(state.ptr(), key_);
  if (found == nullptr && PyErr_Occurred()) throw py::error_already_set();
  version_ = found == tensor_.ptr() ? version : 0;
  return found == Py_None ? nullptr : found;
}

bool StateTensor::look(const WatchedDict& state, DLTensor& view) {
  PyObject* const found = found_in(state);
  return found != nullptr && found == tensor_.ptr() && TorchReader::get().read(found, view);
}

// True if the tensor still has the memory and the layout that were accepted.
bool StateTensor::accept(const DLTensor& view, DType dtype, const StateOwner& owner) const {
  return data_of(view) == data_ && is_exactly(layout_ ? *layout_ : owner.dense, dtype, view);
}

bool StateTensor::read(const WatchedDict& state, const DLTensor* view, DType dtype, const StateOwner& owner) {
  has_moved_ = false;
  if (view != nullptr && !fresh_ && accept(*view, dtype, owner)) return true;
  PyObject* const found = found_in(state);
  if (found != nullptr && found == tensor_.ptr() && !fresh_ && view == nullptr) {
    DLTensor own;
    if (TorchReader::get().read(found, own) && accept(own, dtype, owner)) return true;
  }
  has_moved_ = true;
  if (found == nullptr) {
    has_moved_ = tensor_ || fresh_;
    tensor_ = py::object();
    if (!fresh_) data_ = nullptr;
    if (fresh_) take_fresh(owner);
    return false;
  }
  if (fresh_ && found == converted_.ptr()) {
    take_fresh(owner);
    return true;
  }
  auto tensor = py::reinterpret_borrow<py::object>(found);
  tensor_ = py::object();  // until `tensor` is accepted
  const DLTensor own = must_read(tensor, owner.name() + ", " + py::str(key_).cast<std::string>());
  adopt(std::move(tensor), own, dtype, owner);
  return true;
}

namespace {

// Throws if a DTensor is sharded otherwise than its parameter. May run Python, of torch's.
void require_same_places(const py::object& tensor, const py::object& parameter, const std::string& what) {
  const TorchReader& torch = TorchReader::get();
  if (torch.spec(tensor.ptr()) == torch.spec(parameter.ptr())) return;
  for (const char* const name : {"device_mesh", "placements"}) {
    if (tensor.attr(name).equal(parameter.attr(name))) continue;
    throw py::type_error(what + ": " + described(tensor, name) + " must be the parameter's, " +
                         described(parameter, name) + ": redistribute the tensor");
  }
}

}  // namespace

void StateTensor::adopt(py::object tensor, const DLTensor& view, DType dtype, const StateOwner& owner) {
  forget();
  const std::string what = owner.name() + ", " + py::str(key_).cast<std::string>();
  const TorchReader& torch = TorchReader::get();
  if (torch.is_dtensor(tensor.ptr()) != torch.is_dtensor(owner.parameter.ptr())) {
    throw py::type_error(what + ": type=" + Py_TYPE(tensor.ptr())->tp_name +
                         " must be a DTensor if the parameter is one" + ", and only then");
  }
  if (torch.is_dtensor(tensor.ptr())) require_same_places(tensor, owner.parameter, what);
  require_alike(owner.dense, dtype, view, torch.local(tensor.ptr()), torch.local(owner.parameter.ptr()), what);
  if (same_strides(owner.dense, view)) {
    if (!is_exactly(owner.dense, dtype, view)) layout_ = std::make_unique<Layout>(view);
    data_ = data_of(view);
    tensor_ = std::move(tensor);
    return;
  }
  fresh_ = TorchReader::get().empty_like(owner.parameter, dtype);
  TorchReader::get().copy(fresh_, tensor);
  converted_ = std::move(tensor);
  take_fresh(owner);
}

void StateTensor::take_fresh(const StateOwner& owner) { data_ = data_of(must_read(fresh_, owner.name())); }

void StateTensor::make(DType dtype, const StateOwner& owner, Content content) {
  has_moved_ = true;
  if (fresh_) return;
  forget();
  const TorchReader& torch = TorchReader::get();
  fresh_ = torch.empty_like(owner.parameter, dtype);
  // The host cannot know whether a device has written the tensor, and nobody must find garbage there.
  const bool on_device = !is_cpu(owner.dense.device);
  if (content == Content::zeros || (content == Content::anything && on_device)) fresh_.attr("zero_")();
  if (content == Content::parameter) torch.copy(fresh_, owner.parameter);
  take_fresh(owner);
}

void StateTensor::write(const WatchedDict& state, std::vector<py::object>& replaced) {
  if (!fresh_) return;
  replaced.push_back(std::move(converted_));
  if (PyDict_SetItem(state.ptr(), key_, fresh_.ptr()) != 0) throw py::error_already_set();
  tensor_ = std::move(fresh_);
}

void StateTensor::forget() {
  tensor_ = fresh_ = converted_ = py::object();
  layout_.reset();
  data_ = nullptr;
}

}  // namespace clr
