// Tells how this extension was built and what it found on this machine.
#include <pybind11/pybind11.h>

#include <string>

#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "cuda/support.h"
#include "python/bindings.h"

namespace clr {

namespace {

namespace py = pybind11;
using py::literals::operator""_a;

py::dict build_info() {
  py::list compiled, detected;
  for (const Isa& isa : compiled_isas()) {
    compiled.append(isa.name);
    if (isa.detected) detected.append(isa.name);
  }
  const std::string no_cuda = why_no_cuda();
  return py::dict(
      "version"_a = CLR_NATIVE_VERSION, "compiler"_a = CLR_NATIVE_COMPILER, "flags"_a = CLR_NATIVE_FLAGS,
      "isa"_a = py::dict("compiled"_a = compiled, "detected"_a = detected, "selected"_a = selected_isa().name),
      "threads"_a = thread_backend(),
      "cuda"_a = py::dict("compiled"_a = cuda_is_compiled(), "available"_a = no_cuda.empty(), "reason"_a = no_cuda));
}

}  // namespace

void bind_info(py::module_& m) {
  selected_isa();  // a wrong CLR_NATIVE_ISA is an error of the import
  m.attr("__version__") = CLR_NATIVE_VERSION;
  m.def("build_info", &build_info,
        R"(How this extension was built and what it runs on, as a plain dict.

Keys: ``version``, ``compiler``, ``flags`` (strings), ``isa`` (``compiled``, ``detected``: lists of names,
``selected``: the one in use), ``threads`` (``"torch"`` or why serial), ``cuda`` (``compiled``: are the kernels in this
build; ``available``: is there a driver with a device; ``reason``: what is missing, empty if nothing is). The flags end
with what kernels were compiled for, as nvcc names it: in ``CLR_NATIVE_CUDA=AUTO,sm_89,compute_75``, machine code for
compute capability 8.9, and PTX from which the driver makes that of any from 7.5 on.

The driver is looked for and initialised by this call, not by the import: a process forked later cannot use CUDA.

>>> build_info()["isa"]["selected"] in build_info()["isa"]["detected"]
True
)");
}

}  // namespace clr
