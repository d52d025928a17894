// The dict of a parameter group: what is taken out of it and put into it, and how messages name it.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace clr {

namespace py = pybind11;

inline std::string group_name(std::size_t index) { return "parameter group " + std::to_string(index) + ": "; }

// Borrowed from the dict. Keys are interned once: a dict finds them by identity.
inline PyObject* group_item(PyObject* group, PyObject* key, std::size_t index) {
  PyObject* const object = PyDict_GetItemWithError(group, key);
  if (object != nullptr) return object;
  if (PyErr_Occurred()) throw py::error_already_set();
  throw py::value_error(group_name(index) + "has lost its key '" + py::str(key).cast<std::string>() + "'");
}

inline void set_group_item(PyObject* group, PyObject* key, const py::object& value) {
  if (PyDict_SetItem(group, key, value.ptr()) != 0) throw py::error_already_set();
}

}  // namespace clr
