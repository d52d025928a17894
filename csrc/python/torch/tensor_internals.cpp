#include "python/torch/tensor_internals.h"

#include <pybind11/pybind11.h>

#include <vector>

namespace clr {

namespace {

namespace py = pybind11;

constexpr int kWord = sizeof(std::uint64_t);
// Bytes that are looked through: all of Python's object but its header, and the first of torch's objects, which are
// larger.
constexpr int kHeader = sizeof(PyObject), kPointers = 64, kFlags = 176;

const void* address_of(const py::object& object) {
  const auto number = object.attr("_cdata").cast<std::uintptr_t>();
  const void* address = nullptr;
  std::memcpy(static_cast<void*>(&address), &number, sizeof address);
  return address;
}

std::uint64_t word(const void* object, int offset) {
  std::uint64_t found = 0;
  std::memcpy(&found, static_cast<const char*>(object) + offset, sizeof found);
  return found;
}

bool names(const void* object, int offset, const void* other) {
  return word(object, offset) == reinterpret_cast<std::uintptr_t>(other);
}

// Returns the only offset from `begin` to `end` at which `holds` is true, or -1.
template <class Holds>
int only(int begin, int end, const Holds& holds) {
  int found = -1;
  for (int offset = begin; offset + kWord <= end; offset += kWord) {
    if (!holds(offset)) continue;
    if (found != -1) return -1;
    found = offset;
  }
  return found;
}

}  // namespace

TensorInternals::TensorInternals() {
  static_assert(sizeof(void*) == kWord || sizeof(void*) == kWord / 2);
  if (sizeof(void*) != kWord || !py::hasattr(py::module_::import("torch").attr("Tensor"), "_cdata")) return;
  try {
    find_pointers();
    if (impl_ != kUnknown) find_negative();
  } catch (const py::error_already_set&) {
    impl_ = kUnknown;  // a mode of the user's refused the tensors: then nothing is known
  }
}

void TensorInternals::find_pointers() {
  const py::module_ torch = py::module_::import("torch");
  const auto zeros = [&] { return torch.attr("zeros")(1, py::arg("device") = "cpu"); };
  const py::object gradient = zeros(), other = zeros(), parameter = torch.attr("nn").attr("Parameter")(zeros());
  const py::object alias = gradient.attr("detach")();  // shares storage and version counter
  parameter.attr("grad") = gradient;

  const void *const own = address_of(gradient), *const its_alias = address_of(alias),
                    *const another = address_of(other);
  const auto size = static_cast<int>(Py_TYPE(gradient.ptr())->tp_basicsize);
  impl_ = only(kHeader, size, [&](int at) { return names(gradient.ptr(), at, own); });
  const void* const storage = address_of(gradient.attr("untyped_storage")());
  const auto is_shared = [&](int at) {
    return word(own, at) == word(its_alias, at) && word(own, at) != word(another, at);
  };
  storage_ = only(0, kPointers, [&](int at) { return is_shared(at) && names(own, at, storage); });
  version_ = only(0, kPointers, [&](int at) { return is_shared(at) && !names(own, at, storage); });
  // A tensor that needs no gradient has no such part.
  const void* const with = address_of(parameter);
  autograd_ = only(0, kPointers, [&](int at) { return word(another, at) == 0 && word(with, at) != 0; });
  if (autograd_ == kUnknown) return;
  grad_ = only(0, kPointers, [&](int at) { return names(named(with, autograd_), at, own); });
}

// Compares lazy negatives with views, parameters and views of other dtypes, which all differ in other bits as well.
void TensorInternals::find_negative() {
  const py::module_ torch = py::module_::import("torch");
  if (!py::hasattr(torch, "_neg_view")) return;
  std::vector<py::object> ordinary, negative;
  for (int i = 1; i <= 16; ++i) {
    const py::object dtype = torch.attr(i % 2 != 0 ? "float32" : "float64");
    const py::object tensor = torch.attr("zeros")(i, py::arg("dtype") = dtype, py::arg("device") = "cpu");
    const py::object parameter = torch.attr("nn").attr("Parameter")(tensor);
    ordinary.insert(ordinary.end(), {tensor, parameter, tensor.attr("view")(-1), parameter.attr("view")(1, -1)});
    negative.insert(negative.end(), {torch.attr("_neg_view")(tensor), torch.attr("_neg_view")(parameter),
                                     torch.attr("_neg_view")(parameter).attr("detach")()});
  }
  std::uint64_t found = 0;
  const int offset = only(0, kFlags, [&](int at) {
    std::uint64_t in_all = ~std::uint64_t{0}, in_any = 0;
    for (const py::object& each : negative) in_all &= word(address_of(each), at);
    for (const py::object& each : ordinary) in_any |= word(address_of(each), at);
    const std::uint64_t differs = in_all & ~in_any;
    if (differs != 0) found = differs;
    return differs != 0;
  });
  const bool is_one_bit = (found & (found - 1)) == 0;
  if (offset == -1 || !is_one_bit) return;
  negative_word_ = offset;
  negative_ = found;
}

}  // namespace clr
