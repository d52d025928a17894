#include <pybind11/pybind11.h>

#include "python/bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The native core of clr_native.";
  clr::bind_info(m);
  clr::bind_schedule(m);
  clr::bind_scheduler(m);
  clr::bind_optimizer(m);
}
