// A scheduler's writer of groups, for python/clr_native/scheduler/.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "python/bindings.h"
#include "python/scheduler/group_writer.h"
#include "python/torch/gc_support.h"

namespace clr {

void bind_scheduler(py::module_& m) {
  py::class_<GroupWriter>(m, "GroupWriter", "Writes the values of schedules to parameter groups.",
                          collected<GroupWriter>())
      .def(py::init<const std::vector<py::object>&, const std::vector<py::object>&,
                    const std::vector<std::optional<std::string>>&>(),
           py::arg("schedules"), py::arg("scale_fns"), py::arg("momentum_keys"),
           "For each group: its schedule, its functions, and 'betas', 'momentum' or None for what takes its momentum.")
      .def("write", &GroupWriter::write, py::arg("groups"), py::arg("step"),
           "Write the values of `step`. False, with nothing done, if there are not as many groups as schedules.")
      .def("seek", &GroupWriter::seek, py::arg("step"), "Take `step` as the last one, without writing.")
      .def("last_lr", &GroupWriter::last_lr, "The learning rates of the last step, one a group.")
      .def("last_momentum", &GroupWriter::last_momentum, "The momenta of the last step, None where there is none.");
}

}  // namespace clr
