// Has a dict changed?
#pragma once

#include <Python.h>

#include <cstdint>

namespace clr {

// CPython before 3.12 gives every change of every dict a number of its own: while it stands, nothing has changed. 0
// where it does not: then the dict has to be looked at.
#if PY_VERSION_HEX < 0x030c0000 && !defined(PYPY_VERSION)
inline std::uint64_t version_of(PyObject* dict) { return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag; }
#else
inline std::uint64_t version_of(PyObject*) { return 0; }
#endif

}  // namespace clr
