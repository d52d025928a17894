#include "python/torch/watched_dict.h"

#if defined(CLR_DICTS_HAVE_WATCHERS)

#include <unordered_map>

namespace clr {

namespace {

// CPython tells a watcher of every change of a dict before it is made. The GIL guards this object.
class Watcher {
 public:
  // Never destroyed: dicts are changed and destroyed until the interpreter ends.
  static Watcher& get() {
    static Watcher* const watcher = new Watcher();
    return *watcher;
  }

  // Returns the version of a dict, which is watched from now on, or null if no watcher is free: CPython has eight.
  std::shared_ptr<std::uint64_t> watch(PyObject* dict) {
    const auto known = versions_.find(dict);
    if (known != versions_.end()) return known->second;
    if (id_ < 0 || PyDict_Watch(id_, dict) != 0) {
      PyErr_Clear();
      return nullptr;
    }
    return versions_.emplace(dict, std::make_shared<std::uint64_t>(++last_)).first->second;
  }

  // Meanwhile the dict is not watched: calls of the watcher would take longer than the writes.
  void begin_own_writes(PyObject* dict) const { PyDict_Unwatch(id_, dict); }
  void end_own_writes(PyObject* dict, std::uint64_t& version) {
    PyDict_Watch(id_, dict);
    version = ++last_;
  }

 private:
  Watcher() : id_(PyDict_AddWatcher(note)) {
    if (id_ < 0) PyErr_Clear();
  }

  // It runs no Python and sets no error.
  static int note(PyDict_WatchEvent event, PyObject* dict, PyObject*, PyObject*) {
    Watcher& watcher = get();
    const auto known = watcher.versions_.find(dict);
    if (known == watcher.versions_.end()) return 0;
    *known->second = ++watcher.last_;
    if (event == PyDict_EVENT_DEALLOCATED) watcher.versions_.erase(known);
    return 0;
  }

  int id_;
  std::uint64_t last_ = 0;
  std::unordered_map<PyObject*, std::shared_ptr<std::uint64_t>> versions_;
};

}  // namespace

WatchedDict::WatchedDict(py::object dict) : dict_(std::move(dict)) {
  if (dict_) version_ = Watcher::get().watch(dict_.ptr());
}

OwnWrites::OwnWrites(const WatchedDict& dict) : dict_(dict) {
  if (dict_.version_) Watcher::get().begin_own_writes(dict_.ptr());
}

OwnWrites::~OwnWrites() {
  if (dict_.version_) Watcher::get().end_own_writes(dict_.ptr(), *dict_.version_);
}

}  // namespace clr

#endif
