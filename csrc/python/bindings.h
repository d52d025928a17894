// What the module consists of.
#pragma once

#include <pybind11/pybind11.h>

namespace clr {

void bind_info(pybind11::module_& m);
void bind_schedule(pybind11::module_& m);
void bind_scheduler(pybind11::module_& m);
void bind_optimizer(pybind11::module_& m);

}  // namespace clr
