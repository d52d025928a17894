// How torch tensors are read: through the DLPack exchange API of their type, without linking libtorch.
#pragma once

#include <dlpack/dlpack.h>
#include <pybind11/pybind11.h>

#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "core/slot.h"
#include "python/torch/tensor_internals.h"

namespace clr {

namespace py = pybind11;

// Shape, strides, dtype and device of a tensor, copied so that they outlive it.
class Layout {
 public:
  Layout() = default;
  explicit Layout(const DLTensor& tensor);

  std::size_t ndim() const { return ndim_; }
  std::int64_t shape(std::size_t i) const { return numbers()[2 * i]; }
  std::int64_t stride(std::size_t i) const { return numbers()[2 * i + 1]; }

  std::int64_t size() const;
  std::int64_t span() const;  // in elements, from the first to the end of the last
  std::int64_t span_bytes() const { return span() * dtype.bits / 8; }

  DLDataType dtype{};
  DLDevice device{};

 private:
  const std::int64_t* numbers() const { return ndim_ <= kNear ? near_.data() : far_.data(); }

  // Size and stride of each dimension. A step looks at them for every tensor, so the first few are kept in place.
  static constexpr std::size_t kNear = 4;
  std::size_t ndim_ = 0;
  std::array<std::int64_t, 2 * kNear> near_{};
  std::vector<std::int64_t> far_;
};

inline bool same_dtype(DLDataType a, DLDataType b) { return a.code == b.code && a.bits == b.bits; }

inline bool same_device(const Layout& layout, const DLTensor& tensor) {
  return layout.device.device_type == tensor.device.device_type && layout.device.device_id == tensor.device.device_id;
}

inline bool same_type(const Layout& layout, const DLTensor& tensor) {
  return same_dtype(layout.dtype, tensor.dtype) && same_device(layout, tensor);
}

// True if shape, strides and device are exactly those of the layout and the dtype is this one. This is the check of a
// steady-state step.
inline bool is_exactly(const Layout& layout, DLDataType dtype, const DLTensor& tensor) {
  const std::size_t n = layout.ndim();
  bool same =
      same_dtype(dtype, tensor.dtype) && same_device(layout, tensor) && n == static_cast<std::size_t>(tensor.ndim);
  for (std::size_t i = 0; same && i < n; ++i) {
    same = layout.shape(i) == tensor.shape[i] && layout.stride(i) == tensor.strides[i];
  }
  return same;
}
inline bool is_exactly(const Layout& layout, const DLTensor& tensor) {
  return is_exactly(layout, layout.dtype, tensor);
}

inline DLDataType dlpack_type(DType dtype) {
  return {std::uint8_t(dtype == DType::bfloat16 ? kDLBfloat : kDLFloat), std::uint8_t(8 * size_of(dtype)), 1};
}
inline bool is_exactly(const Layout& layout, DType dtype, const DLTensor& tensor) {
  return is_exactly(layout, dlpack_type(dtype), tensor);
}

bool same_shape(const Layout& layout, const DLTensor& tensor);
// True if the strides are the same. Strides of dimensions of size 1 and of empty tensors do not matter.
bool same_strides(const Layout& layout, const DLTensor& tensor);

enum class Density {
  dense,   // covers every element of its memory span once
  gapped,  // has gaps, but no element twice
  overlapping
};
Density density_of(const Layout& layout);

inline void* data_of(const DLTensor& tensor) { return static_cast<char*>(tensor.data) + tensor.byte_offset; }

// An attribute of a class that keeps it in a slot (`__slots__`), or elsewhere.
class Member {
 public:
  explicit Member(const char* name) : name_(PyUnicode_InternFromString(name)) {}

  // Finds out where objects of this type keep it.
  void find_in(PyObject* type);

  // Returns the attribute of an object of that type, or null if it is not in a slot.
  CLR_INLINE_MEMBER PyObject* in_slot_of(PyObject* object) const {
    PyObject* found = nullptr;
    if (offset_ != 0) {
      std::memcpy(static_cast<void*>(&found), reinterpret_cast<char*>(object) + offset_, sizeof(PyObject*));
    }
    return found;
  }
  // Returns the attribute of an object of that type. Runs no Python if it is in a slot.
  CLR_INLINE_MEMBER PyObject* of(PyObject* object) const {
    PyObject* const found = in_slot_of(object);
    return found != nullptr ? found : looked_up(object);
  }

 private:
  PyObject* looked_up(PyObject* object) const;

  PyObject* name_;  // interned, kept for ever
  Py_ssize_t offset_ = 0;
};

// The parts of torch's Python interface that a step uses, looked up once. All functions need the GIL.
class TorchReader {
 public:
  static const TorchReader& get();

  // True if the object is a tensor. The other functions may be called with tensors only.
  bool is_tensor(PyObject* object) const { return PyObject_TypeCheck(object, tensor_type_) != 0; }

  // True for torch's own types, whose attributes run no Python.
  bool is_plain(PyObject* object) const {
    return Py_IS_TYPE(object, parameter_type_) || Py_IS_TYPE(object, tensor_type_);
  }

  // True for a DTensor, whose numbers lie in its local tensor.
  bool is_dtensor(PyObject* tensor) const;

  // Returns the local tensor of a DTensor, which holds it, and any other tensor itself. Runs no Python.
  CLR_INLINE_MEMBER PyObject* local(PyObject* tensor) const { return is_plain(tensor) ? tensor : local_part(tensor); }

  // Asks for the memory of a DTensor's local tensor, a stage later than for that of the DTensor itself.
  CLR_INLINE_MEMBER void prefetch_local(TensorInternals::Stage stage, PyObject* dtensor) const {
    if (dtensor == nullptr) return;
    if (stage == TensorInternals::Stage::object) return prefetch_bytes(dtensor, kDTensorBytes);
    if (!Py_IS_TYPE(dtensor, reinterpret_cast<PyTypeObject*>(dtensor_type_))) return;
    internals_.prefetch(static_cast<TensorInternals::Stage>(static_cast<int>(stage) - 1), local_.in_slot_of(dtensor));
  }

  // Returns how a DTensor is sharded, borrowed: another object as soon as it is sharded otherwise.
  PyObject* spec(PyObject* dtensor) const { return spec_.of(dtensor); }

  // Fills `view`, which is valid until the tensor changes, with the memory of local(tensor). Returns false, with no
  // Python exception set, if the tensor has no readable memory of its own.
  bool read(PyObject* tensor, DLTensor& view) const;

  // True if the tensor is a lazy negative. DLPack does not tell, and torch takes three times as long as read().
  bool is_negative(PyObject* tensor) const;

  // What torch's tensors look like inside, found out when this object was made.
  const TensorInternals& internals() const { return internals_; }

  // Returns tensor.grad, or null for None.
  py::object grad(PyObject* tensor) const;

  // Returns the dtype of a tensor, which need not be readable, or nullopt if the kernels do not know the dtype.
  std::optional<DType> dtype(py::handle tensor) const;

  // Returns a new dense tensor like this one. It has the same layout if this one is dense.
  py::object empty_like(py::handle tensor) const;
  py::object empty_like(py::handle tensor, DType dtype) const;

  // Calls target.copy_(source) outside autograd.
  void copy(py::handle target, py::handle source) const;

  // Returns torch's current stream on a CUDA device.
  void* current_stream(int device) const;

  // Increments the version counters of a list of tensors. Runs no Python.
  void increment_version(const py::list& tensors) const;

  // Sets tensor.grad to None.
  void forget_grad(PyObject* tensor) const;

 private:
  TorchReader();
  static constexpr std::size_t kDTensorBytes = 128;  // of the object, or about that
  PyObject* local_part(PyObject* tensor) const;
  const TensorInternals internals_;
  const DLPackExchangeAPI* api_;
  PyTypeObject *tensor_type_, *parameter_type_;
  mutable PyObject* dtensor_type_ = nullptr;  // null until torch.distributed.tensor is imported
  mutable Member local_{"_local_tensor"}, spec_{"_spec"};
  getter grad_getter_;
  setter grad_setter_;
  void* grad_closure_;
  PyCFunction is_neg_;
  py::object empty_like_, increment_version_;
  py::object dtypes_[4];  // torch's, by DType
};

// Returns the reason why a tensor cannot be read: "layout=torch.sparse_coo ...".
std::string why_unreadable(py::handle tensor);

// Returns the kernels' dtype, or nullopt if the kernels do not know it.
std::optional<DType> known_dtype(DLDataType dtype);

// Returns the kernels' dtype of a layout. Throws a TypeError that names `what` if the kernels do not know it.
DType dtype_of(const Layout& layout, py::handle tensor, const std::string& what);

// Returns "float32" and the like.
const char* name_of(DType dtype);

// Returns "dtype=torch.float32" and the like.
std::string described(py::handle tensor, const char* attribute);

}  // namespace clr
