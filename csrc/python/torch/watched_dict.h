// A dict that tells whether it has changed.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <utility>

namespace clr {

namespace py = pybind11;

#if !defined(PYPY_VERSION) && PY_VERSION_HEX >= 0x030c0000
#define CLR_DICTS_HAVE_WATCHERS
#endif

class WatchedDict {
 public:
  WatchedDict() = default;
#if defined(CLR_DICTS_HAVE_WATCHERS)
  explicit WatchedDict(py::object dict);
#else
  explicit WatchedDict(py::object dict) : dict_(std::move(dict)) {}
#endif

  PyObject* ptr() const { return dict_.ptr(); }
  explicit operator bool() const { return bool(dict_); }

  // Returns the dict's version: while it stays, the dict has not changed. Returns 0 if there are no versions; the dict
  // then has to be compared.
  std::uint64_t version() const {
#if defined(CLR_DICTS_HAVE_WATCHERS)
    return version_ ? *version_ : 0;
#elif defined(PYPY_VERSION)
    return 0;
#else
    // CPython before 3.12 gives each change of any dict a new number.
    return dict_ ? reinterpret_cast<PyDictObject*>(dict_.ptr())->ma_version_tag : 0;
#endif
  }

 private:
  friend class OwnWrites;

  py::object dict_;
#if defined(CLR_DICTS_HAVE_WATCHERS)
  std::shared_ptr<std::uint64_t> version_;  // the same for all objects that watch this dict
#endif
};

// While this lives, its owner alone writes into the dict, and all that it writes gives the dict one new version.
class OwnWrites {
 public:
#if defined(CLR_DICTS_HAVE_WATCHERS)
  explicit OwnWrites(const WatchedDict& dict);
  ~OwnWrites();
  OwnWrites(const OwnWrites&) = delete;
  OwnWrites& operator=(const OwnWrites&) = delete;

 private:
  const WatchedDict& dict_;
#else
  explicit OwnWrites(const WatchedDict&) {}
#endif
};

}  // namespace clr
