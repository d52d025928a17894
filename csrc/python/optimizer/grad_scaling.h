// The attributes that a GradScaler sets on an optimizer before its step.
#pragma once

#include <pybind11/pybind11.h>

#include "kernel/executor.h"

namespace clr {

namespace py = pybind11;

// Returns what the attributes `grad_scale` and `found_inf` ask of a step over these groups. If the first parameter is
// on a GPU, numbers on a GPU stay there, so that nobody waits for them, and the step writes its own result into
// `_report_inf`, if that is there. Throws ValueError, TypeError or RuntimeError for what is not one number that serves.
StepRequest read_request(const py::dict& attributes, const py::list& groups);

// Returns the tensor into which the caller is to write whether the step was skipped: `_report_inf`, where the step does
// not write it. Null for none.
py::object report_of(const py::dict& attributes, const StepRequest& request);

// Writes a number into a tensor of one.
void put_number(py::handle tensor, float number);

// True if this is a tensor on a CUDA device.
bool is_on_gpu(py::handle object);

}  // namespace clr
