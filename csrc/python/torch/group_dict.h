// Reads and writes the dict of a parameter group, and names it in messages.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "core/prefetch.h"

namespace clr {

namespace py = pybind11;

inline std::string group_label(std::size_t index) { return "parameter group " + std::to_string(index) + ": "; }

// Returns an object borrowed from the dict. Keys are interned once, so the dict finds them by identity.
inline PyObject* group_item(PyObject* group, PyObject* key, std::size_t index) {
  PyObject* const object = PyDict_GetItemWithError(group, key);
  if (object != nullptr) return object;
  if (PyErr_Occurred()) throw py::error_already_set();
  throw py::value_error(group_label(index) + "has lost its key '" + py::str(key).cast<std::string>() + "'");
}

// Asks for the memory of a dict's entries, which CPython keeps in a table of their own. The dict itself is read.
CLR_INLINE void prefetch_entries(PyObject* dict) {
#if !defined(PYPY_VERSION)
  constexpr std::size_t kBytes = 512;  // some thirty entries of a group
  prefetch_bytes(reinterpret_cast<PyDictObject*>(dict)->ma_keys, kBytes);
#endif
}

inline void set_group_item(PyObject* group, PyObject* key, py::handle value) {
  if (PyDict_SetItem(group, key, value.ptr()) != 0) throw py::error_already_set();
}

// Sets an item and moves the former object into `replaced`. No object is destroyed, so this runs no Python.
inline void replace_group_item(PyObject* group, PyObject* key, const py::object& value,
                               std::vector<py::object>& replaced) {
  replaced.push_back(py::reinterpret_borrow<py::object>(PyDict_GetItemWithError(group, key)));
  set_group_item(group, key, value);
}

// Reads the entries of group number `index`. Throws TypeError or ValueError with name=value.
struct GroupReader {
  PyObject* group;
  std::size_t index;

  // Returns an owned object: reading a number can run other code, which may remove the object from the group.
  py::object item(PyObject* key) const { return py::reinterpret_borrow<py::object>(group_item(group, key, index)); }

  std::string name_value(PyObject* key, PyObject* object) const {
    return group_label(index) + py::str(key).cast<std::string>() + "=" + py::repr(object).cast<std::string>();
  }

  double number(PyObject* key, PyObject* object) const {
    const double value = PyUnicode_Check(object) ? -1.0 : PyFloat_AsDouble(object);
    if (PyUnicode_Check(object) || PyErr_Occurred()) {
      PyErr_Clear();
      throw py::type_error(name_value(key, object) + " must be a number");
    }
    return value;
  }

  bool flag(PyObject* key) const {
    const py::object object = item(key);
    if (!PyBool_Check(object.ptr())) throw py::type_error(name_value(key, object.ptr()) + " must be True or False");
    return object.ptr() == Py_True;
  }

  // Reads an int from 0 to `last`.
  std::uint64_t count(PyObject* key, std::uint64_t last, const char* must) const {
    const py::object object = item(key);
    const unsigned long long value = PyLong_Check(object.ptr()) ? PyLong_AsUnsignedLongLong(object.ptr()) : 0;
    if (!PyLong_Check(object.ptr()) || PyErr_Occurred() || value > last) {
      PyErr_Clear();
      throw py::value_error(name_value(key, object.ptr()) + " must be " + must);
    }
    return value;
  }
};

}  // namespace clr
