#include "python/torch/tensor_view.h"

#include <structmember.h>

#include <algorithm>

#include "python/torch/gc_support.h"

namespace clr {

namespace {

// Returns the C function of a method or getter of torch.Tensor. A lookup in the type object at each call would cost
// more than the call itself.
PyCFunction method_of(py::handle type, const char* name) {
  const py::object descriptor = type.attr(name);
  if (!Py_IS_TYPE(descriptor.ptr(), &PyMethodDescr_Type)) {
    throw py::type_error(std::string("torch.Tensor.") + name + " is not a method of the kind this build reads");
  }
  return reinterpret_cast<PyMethodDescrObject*>(descriptor.ptr())->d_method->ml_meth;
}

}  // namespace

void Member::find_in(PyObject* type) {
  const py::object found = py::getattr(type, name_, py::none());
  const bool is_slot = Py_IS_TYPE(found.ptr(), &PyMemberDescr_Type);
  offset_ = is_slot ? reinterpret_cast<PyMemberDescrObject*>(found.ptr())->d_member->offset : 0;
}

// The object holds what is returned.
PyObject* Member::looked_up(PyObject* object) const {
  const auto found = py::reinterpret_steal<py::object>(PyObject_GetAttr(object, name_));
  if (!found) throw py::error_already_set();
  return found.ptr();
}

Layout::Layout(const DLTensor& tensor)
    : dtype(tensor.dtype), device(tensor.device), ndim_(static_cast<std::size_t>(tensor.ndim)) {
  if (ndim_ > kNear) far_.resize(2 * ndim_);
  std::int64_t* const numbers = ndim_ > kNear ? far_.data() : near_.data();
  for (std::size_t i = 0; i < ndim_; ++i) {
    numbers[2 * i] = tensor.shape[i];
    numbers[2 * i + 1] = tensor.strides[i];
  }
}

std::int64_t Layout::size() const {
  std::int64_t size = 1;
  for (std::size_t i = 0; i < ndim(); ++i) size *= shape(i);
  return size;
}

std::int64_t Layout::span() const {
  if (size() == 0) return 0;
  std::int64_t last = 0;
  for (std::size_t i = 0; i < ndim(); ++i) last += (shape(i) - 1) * stride(i);
  return last + 1;
}

bool same_shape(const Layout& layout, const DLTensor& tensor) {
  bool same = layout.ndim() == static_cast<std::size_t>(tensor.ndim);
  for (std::size_t i = 0; same && i < layout.ndim(); ++i) same = layout.shape(i) == tensor.shape[i];
  return same;
}

bool same_strides(const Layout& layout, const DLTensor& tensor) {
  if (layout.size() == 0) return true;
  for (std::size_t i = 0; i < layout.ndim(); ++i) {
    if (layout.shape(i) != 1 && layout.stride(i) != tensor.strides[i]) return false;
  }
  return true;
}

Density density_of(const Layout& layout) {
  if (layout.size() <= 1) return Density::dense;
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < layout.ndim(); ++i) {
    if (layout.shape(i) != 1) order.push_back(i);
  }
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return layout.stride(a) < layout.stride(b); });
  std::int64_t next = 1;  // the smallest stride at which the next dimension cannot overlap the dimensions before it
  bool dense = true;
  for (const std::size_t i : order) {
    if (layout.stride(i) < next) return Density::overlapping;
    dense = dense && layout.stride(i) == next;
    next = layout.stride(i) * (layout.shape(i) - 1) + next;
  }
  return dense ? Density::dense : Density::gapped;
}

const TorchReader& TorchReader::get() {
  static const TorchReader* const reader = new TorchReader();  // never destroyed: Python would be gone by then
  return *reader;
}

TorchReader::TorchReader() {
  const py::object tensor = py::module_::import("torch").attr("Tensor");
  if (!py::hasattr(tensor, "__dlpack_c_exchange_api__")) {
    throw py::import_error("torch.Tensor has no __dlpack_c_exchange_api__: clr-native needs torch >= 2.10");
  }
  tensor_type_ = reinterpret_cast<PyTypeObject*>(tensor.inc_ref().ptr());
  const py::object parameter = py::module_::import("torch.nn").attr("Parameter");
  parameter_type_ = reinterpret_cast<PyTypeObject*>(parameter.inc_ref().ptr());
  const py::object capsule = tensor.attr("__dlpack_c_exchange_api__");
  api_ = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (api_ == nullptr) throw py::error_already_set();
  if (api_->header.version.major != DLPACK_MAJOR_VERSION || api_->dltensor_from_py_object_no_sync == nullptr) {
    throw py::import_error("this torch speaks DLPack " + std::to_string(api_->header.version.major) +
                           ".x, clr-native was built for " + std::to_string(DLPACK_MAJOR_VERSION) + ".x");
  }
  const py::object grad = tensor.attr("grad");
  if (!Py_IS_TYPE(grad.ptr(), &PyGetSetDescr_Type)) {
    throw py::type_error("torch.Tensor.grad is not an attribute of the kind this build reads");
  }
  const PyGetSetDef* const getset = reinterpret_cast<PyGetSetDescrObject*>(grad.ptr())->d_getset;
  grad_getter_ = getset->get;
  grad_setter_ = getset->set;
  grad_closure_ = getset->closure;
  is_neg_ = method_of(tensor, "is_neg");
  empty_like_ = py::module_::import("torch").attr("empty_like");
  for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    dtypes_[static_cast<int>(dtype)] = py::module_::import("torch").attr(name_of(dtype));
  }
  increment_version_ = py::module_::import("torch._C").attr("_increment_version");
}

bool TorchReader::is_dtensor(PyObject* tensor) const {
  if (is_plain(tensor)) return false;
  if (dtensor_type_ == nullptr) {
    const auto name = py::reinterpret_steal<py::object>(PyUnicode_FromString("torch.distributed.tensor"));
    const auto module = py::reinterpret_steal<py::object>(PyImport_GetModule(name.ptr()));
    if (!module || !py::hasattr(module, "DTensor")) return false;
    dtensor_type_ = py::object(module.attr("DTensor")).release().ptr();
    local_.find_in(dtensor_type_);
    spec_.find_in(dtensor_type_);
  }
  return PyObject_TypeCheck(tensor, reinterpret_cast<PyTypeObject*>(dtensor_type_)) != 0;
}

PyObject* TorchReader::local_part(PyObject* tensor) const {
  if (!is_dtensor(tensor)) return tensor;
  return local_.of(tensor);
}

bool TorchReader::read(PyObject* tensor, DLTensor& view) const {
  tensor = local(tensor);
  if (api_->dltensor_from_py_object_no_sync(tensor, &view) != 0) {
    PyErr_Clear();
    return false;
  }
  // A null pointer is legal for empty tensors only.
  return view.data != nullptr || std::any_of(view.shape, view.shape + view.ndim, [](std::int64_t n) { return n == 0; });
}

bool TorchReader::is_negative(PyObject* tensor) const {
  tensor = local(tensor);
  if (is_plain(tensor) && !internals_.may_be_negative(tensor)) return false;
  PyObject* const answer = is_neg_(tensor, nullptr);
  if (answer == nullptr) throw py::error_already_set();
  Py_DECREF(answer);
  return answer == Py_True;
}

py::object TorchReader::grad(PyObject* tensor) const {
  PyObject* const grad = grad_getter_(tensor, grad_closure_);
  if (grad == nullptr) throw py::error_already_set();
  auto result = py::reinterpret_steal<py::object>(grad);
  return result.is_none() ? py::object() : result;
}

std::optional<DType> TorchReader::dtype(py::handle tensor) const {
  const py::object own = tensor.attr("dtype");
  for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    if (own.is(dtypes_[static_cast<int>(dtype)])) return dtype;
  }
  return std::nullopt;
}

py::object TorchReader::empty_like(py::handle tensor) const { return empty_like_(tensor.attr("detach")()); }

py::object TorchReader::empty_like(py::handle tensor, DType dtype) const {
  return empty_like_(tensor.attr("detach")(), py::arg("dtype") = dtypes_[static_cast<int>(dtype)]);
}

void TorchReader::copy(py::handle target, py::handle source) const {
  target.attr("detach")().attr("copy_")(source.attr("detach")());
}

void* TorchReader::current_stream(int device) const {
  void* stream = nullptr;
  if (api_->current_work_stream(kDLCUDA, device, &stream) != 0) throw py::error_already_set();
  return stream;
}

void TorchReader::increment_version(const py::list& tensors) const {
  const CollectorPause pause;
  PyObject* const none = PyObject_CallOneArg(increment_version_.ptr(), tensors.ptr());
  if (none == nullptr) throw py::error_already_set();
  Py_DECREF(none);
}

void TorchReader::forget_grad(PyObject* tensor) const {
  if (grad_setter_(tensor, Py_None, grad_closure_) != 0) throw py::error_already_set();
}

std::string described(py::handle tensor, const char* attribute) {
  return std::string(attribute) + "=" + py::str(tensor.attr(attribute)).cast<std::string>();
}

std::string why_unreadable(py::handle tensor) {
  tensor = TorchReader::get().local(tensor.ptr());
  const std::string type = py::str(py::type::handle_of(tensor).attr("__name__"));
  const std::string layout = py::str(tensor.attr("layout"));
  if (layout != "torch.strided") return "layout=" + layout + " is not supported: make it dense with .to_dense()";
  if (tensor.attr("is_conj")().cast<bool>()) return "is_conj=True is not supported: call .resolve_conj()";
  if (tensor.attr("is_neg")().cast<bool>()) return "is_neg=True is not supported: call .resolve_neg()";
  if (!py::str(tensor.attr("device")).equal(py::str("cpu"))) {
    return described(tensor, "device") + " is not supported: this build runs on cpu tensors";
  }
  return "type=" + type + " has no memory of its own that could be read (a wrapper subclass, or freed storage)";
}

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "float32";
    case DType::float64:
      return "float64";
    case DType::bfloat16:
      return "bfloat16";
    case DType::float16:
      return "float16";
  }
  return "";
}

std::optional<DType> known_dtype(DLDataType dtype) {
  for (const DType known : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    if (same_dtype(dtype, dlpack_type(known))) return known;
  }
  return std::nullopt;
}

DType dtype_of(const Layout& layout, py::handle tensor, const std::string& what) {
  if (const std::optional<DType> known = known_dtype(layout.dtype)) return *known;
  throw py::type_error(what + ": " + described(tensor, "dtype") +
                       " is not supported: use float32, float64, bfloat16 or float16");
}

}  // namespace clr
