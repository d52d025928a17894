// Support for the garbage collector, for classes that refer to a user's objects.
#pragma once

#include <pybind11/pybind11.h>

#include "core/portable.h"

namespace clr {

// Sets up garbage collection for a class with `int traverse(visitproc, void*) const` and `void clear()`.
template <class T>
pybind11::custom_type_setup collected() {
  return pybind11::custom_type_setup([](PyHeapTypeObject* type) {
    type->ht_type.tp_flags |= Py_TPFLAGS_HAVE_GC;
    type->ht_type.tp_traverse = [](PyObject* self, visitproc visit, void* arg) -> int {
      Py_VISIT(Py_TYPE(self));
      if (!pybind11::detail::is_holder_constructed(self)) return 0;
      return pybind11::cast<T&>(pybind11::handle(self)).traverse(visit, arg);
    };
    type->ht_type.tp_clear = [](PyObject* self) -> int {
      if (pybind11::detail::is_holder_constructed(self)) pybind11::cast<T&>(pybind11::handle(self)).clear();
      return 0;
    };
  });
}

// Keeps the garbage collector from running, where new objects may start it: a finalizer may do anything.
class CollectorPause {
 public:
  CLR_INLINE_MEMBER CollectorPause() : was_enabled_(PyGC_Disable() != 0) {}
  CLR_INLINE_MEMBER ~CollectorPause() {
    if (was_enabled_) PyGC_Enable();
  }
  CollectorPause(const CollectorPause&) = delete;
  CollectorPause& operator=(const CollectorPause&) = delete;

 private:
  const bool was_enabled_;
};

}  // namespace clr
