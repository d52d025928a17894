// A learning rate that a user keeps in a tensor on a CUDA device.
#pragma once

#include <pybind11/pybind11.h>

#include "core/progress.h"

namespace clr {

namespace py = pybind11;

// Returns where the number lies, if `lr` is a tensor of one, in float32 or float64, on the device of the first of the
// group's parameters. Returns a place of nothing for any other object: whoever needs its number reads it. Throws
// ValueError for a tensor of one on another CUDA device.
RateOnDevice rate_on_device(py::handle lr, py::handle parameters);

}  // namespace clr
