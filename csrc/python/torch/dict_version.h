// Tells whether a dict has changed.
#pragma once

#include <Python.h>

#include <cstdint>

namespace clr {

// Returns the dict's version. CPython before 3.12 gives each change of any dict a new number: while a dict's version
// stays, the dict has not changed. Returns 0 where there are no versions; the dict then has to be compared.
#if PY_VERSION_HEX < 0x030c0000 && !defined(PYPY_VERSION)
inline std::uint64_t version_of(PyObject* dict) { return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag; }
#else
inline std::uint64_t version_of(PyObject*) { return 0; }
#endif

}  // namespace clr
