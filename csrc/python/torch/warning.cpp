#include "python/torch/warning.h"

#include <pybind11/pybind11.h>

namespace clr {

namespace {

namespace py = pybind11;

// True if the code of a frame belongs to this package, or to torch, which calls this package from many places.
bool is_between(const py::object& frame) {
  const py::object module = frame.attr("f_globals").attr("get")("__name__");
  if (!py::isinstance<py::str>(module)) return false;
  const std::string name = py::str(module);
  const std::string package = name.substr(0, name.find('.'));
  return package == "clr_native" || package == "torch";
}

}  // namespace

void warn_user(const std::string& message) {
  Py_ssize_t level = 1;
  auto frame = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(PyEval_GetFrame()));
  for (; frame && is_between(frame); ++level) {
    py::object caller = frame.attr("f_back");
    if (caller.is_none()) break;
    frame = std::move(caller);
  }
  if (PyErr_WarnEx(PyExc_UserWarning, message.c_str(), level) != 0) throw py::error_already_set();
}

}  // namespace clr
