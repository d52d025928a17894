// Tells whether a dict has changed.
#pragma once

#include <Python.h>

#include <cstdint>

namespace clr {

// Returns the version of a dict: while the version stays, the dict has not changed. Returns 0 if there are no versions;
// the dict then has to be compared.
#if defined(PYPY_VERSION)
inline std::uint64_t version_of(PyObject*) { return 0; }
#elif PY_VERSION_HEX < 0x030c0000
// CPython gives each change of any dict a new number.
inline std::uint64_t version_of(PyObject* dict) { return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag; }
#else
// CPython has no such number any more, but tells a watcher of every change. The first call for a dict has it watched.
std::uint64_t version_of(PyObject* dict);
#endif

}  // namespace clr
