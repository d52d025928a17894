#include "python/torch/dict_version.h"

#if PY_VERSION_HEX >= 0x030c0000 && !defined(PYPY_VERSION)

#include <unordered_map>

namespace clr {

namespace {

// The versions of all watched dicts. The GIL guards them.
class Watcher {
 public:
  // Never destroyed: dicts are changed and destroyed until the interpreter ends.
  static Watcher& get() {
    static Watcher* const watcher = new Watcher();
    return *watcher;
  }

  std::uint64_t version_of(PyObject* dict) {
    const auto known = versions_.find(dict);
    if (known != versions_.end()) return known->second;
    if (id_ < 0 || PyDict_Watch(id_, dict) != 0) {
      PyErr_Clear();  // CPython has few watchers, and others may have taken them all
      return 0;
    }
    return versions_.emplace(dict, ++last_).first->second;
  }

 private:
  Watcher() : id_(PyDict_AddWatcher(note)) {}

  // Called before each change. It runs no Python and sets no error.
  static int note(PyDict_WatchEvent event, PyObject* dict, PyObject*, PyObject*) {
    Watcher& watcher = get();
    const auto known = watcher.versions_.find(dict);
    if (known == watcher.versions_.end()) return 0;
    if (event == PyDict_EVENT_DEALLOCATED) {
      watcher.versions_.erase(known);
    } else {
      known->second = ++watcher.last_;
    }
    return 0;
  }

  int id_;
  std::uint64_t last_ = 0;
  std::unordered_map<PyObject*, std::uint64_t> versions_;
};

}  // namespace

std::uint64_t version_of(PyObject* dict) { return Watcher::get().version_of(dict); }

}  // namespace clr

#endif
