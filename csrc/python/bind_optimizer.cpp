// The native half of FusedCyclicSGD, for python/clr_native/sgd/.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "python/bindings.h"
#include "python/optimizer/grad_scaling.h"
#include "python/optimizer/optimizer.h"
#include "python/torch/gc_support.h"

namespace clr {

namespace {

bool is_readable(const py::object& tensor) {
  DLTensor view;
  return TorchReader::get().read(tensor.ptr(), view);
}

bool apply(NativeOptimizer& optimizer, const py::list& groups, const py::dict& state, const py::dict& attributes) {
  const StepRequest request = read_request(attributes, groups);
  optimizer.apply(groups, state, request);
  const py::object report = report_of(attributes, request);
  if (report) put_number(report, optimizer.last_step().skipped ? 1.0f : 0.0f);
  return optimizer.was_recorded();
}

void set_options(NativeOptimizer& optimizer, double max_norm, double max_value, bool error_if_nonfinite,
                 bool skip_nonfinite, bool advance_on_skip, bool write_unscaled) {
  optimizer.options = {max_norm, max_value, error_if_nonfinite, skip_nonfinite, advance_on_skip, write_unscaled};
}

// Returns the dtypes, by name, of the tensors that steps keep for a parameter of this dtype.
py::dict state_dtypes(const py::dict& group, const std::string& parameter) {
  GroupSettings settings{};
  GroupProgress progress{};
  const GroupOptions options = read_options({group.ptr(), 0}, settings, progress);
  for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    if (parameter != name_of(dtype)) continue;
    const char* const wide = name_of(companion_dtype(dtype, options.storage));
    py::dict dtypes;
    for (const char* const name : kStateTensors) dtypes[name] = wide;
    dtypes[kMomentumBuffer] = name_of(options.buffer_dtype(dtype));
    return dtypes;
  }
  throw py::type_error("dtype=" + parameter + " must be float32, float64, bfloat16 or float16");
}

}  // namespace

void bind_optimizer(py::module_& m) {
  m.attr("STATE_TENSORS") = py::make_tuple(kMomentumBuffer, kAverage, kCompensation, kMasterWeight);
  m.def("state_dtypes", &state_dtypes, py::arg("group"), py::arg("parameter_dtype"),
        "The dtype, by name, of each of STATE_TENSORS for a parameter of this dtype.");
  m.def("is_readable", &is_readable, py::arg("tensor"), "True if a tensor has memory of its own that a step can read.");
  m.def("is_on_gpu", &is_on_gpu, py::arg("tensor"), "True if this is a tensor on a CUDA device.");
  // It refers to a method of the optimizer, which holds it.
  py::class_<AveragesInPlace>(m, "AveragesInPlace", "Puts averages into the place of weights for a `with` block.",
                              collected<AveragesInPlace>())
      .def("__enter__", &AveragesInPlace::enter)
      .def("__exit__", [](AveragesInPlace& averages, const py::args&) { averages.leave(); })
      .def("refuse_inside", &AveragesInPlace::refuse_inside, py::arg("what"),
           "Raises RuntimeError within the block. `what` names the call that is not allowed there.");
  py::class_<BoundGroups>(m, "BoundGroups", "Parameter groups, each bound to its schedule.", collected<BoundGroups>())
      .def(
          py::init<const py::list&, const py::list&, const std::vector<bool>&>(), py::arg("groups"),
          py::arg("schedules"), py::arg("obeyed"),
          "Bind groups to schedules. Where a group is obeyed, the lr and momentum in it are checked and stay; else the "
          "schedule's are written, once all groups have been bound.");
  // It refers to parameters and to a user's scale_fn, which may refer to the optimizer.
  py::class_<NativeOptimizer>(m, "NativeOptimizer", "The steps of one optimizer.", collected<NativeOptimizer>())
      .def(py::init<py::object, py::object, py::object>(), py::arg("read_schedule"), py::arg("averaged_entries"),
           py::arg("sharding"),
           "read_schedule(group, known): the schedule that stands in a group, with the functions of the known one. "
           "averaged_entries: of AveragesInPlace. sharding: of the parameters.")
      .def(
          "refresh_sharding", [](NativeOptimizer& optimizer) { optimizer.shards.refresh(); },
          "Look again whether other processes hold parts of the model: the process group of plain parameters was set.")
      .def("append", &NativeOptimizer::append, py::arg("group"), py::arg("schedule"), py::arg("is_obeyed"),
           "Bind one more group, as BoundGroups does.")
      .def("adopt", &NativeOptimizer::adopt, py::arg("groups"), "Replace all groups by these.")
      .def("schedule_of", &NativeOptimizer::schedule_of, py::arg("group"),
           "The schedule that stands in a group, with the functions of the one that was bound.")
      .def("last_used", &NativeOptimizer::last_used, py::arg("group"),
           "(lr, momentum) of the last update of a group, or (None, None).")
      .def("standing", &NativeOptimizer::standing, py::arg("group"), py::arg("index"),
           "(schedule, True, lr, momentum) as they stand in a group if they are not the schedule's, else (schedule, "
           "False, and those of the schedule). momentum is None where the schedule has none.")
      .def("set_options", &set_options, py::kw_only(), py::arg("max_norm"), py::arg("max_value"),
           py::arg("error_if_nonfinite"), py::arg("skip_nonfinite"), py::arg("advance_on_skip"),
           py::arg("write_unscaled"), "Set the options for all gradients; 0 for no clipping.")
      .def(
          "apply", &apply, py::arg("groups"), py::arg("state"), py::arg("attributes"),
          "Apply one update, or skip it. attributes: the optimizer's. Among them a GradScaler may have put grad_scale, "
          "found_inf, and _report_inf: a tensor of one that receives whether the step was skipped. Returns true if the "
          "step has become part of a CUDA graph instead.")
      .def(
          "expect_replays",
          [](NativeOptimizer& optimizer, bool are_noted) { optimizer.devices().expect_replays(are_noted); },
          py::arg("are_noted"), "Call this for each recorded step. are_noted: if note_replay() follows each replay.")
      .def(
          "note_replay", [](NativeOptimizer& optimizer) { optimizer.devices().note_replay(); },
          "A graph with a recorded step has been put into the current stream.")
      .def("release", &NativeOptimizer::release, py::arg("groups"), py::arg("state"), py::arg("parameter"),
           py::arg("position"),
           "Apply this step's update to one parameter, number `position`, before apply() ends the step.")
      .def("check_release", &NativeOptimizer::check_release, py::arg("groups"),
           "Raises RuntimeError if something needs all gradients at once.")
      .def("synchronise", &NativeOptimizer::synchronise, py::arg("state"),
           "Wait for the devices and write their counts into the groups.")
      .def("followed_schedule", &NativeOptimizer::followed_schedule, py::arg("group"),
           "True if this group's last update followed its schedule.")
      .def(
          "set_warns", [](NativeOptimizer& optimizer, bool warns) { optimizer.warns = warns; }, py::arg("warns"),
          "If false, a step neither warns of a driver or of missing gradients nor counts them.")
      .def_readonly("averages", &NativeOptimizer::averages, "The averages, to be put into the place of the weights.")
      .def_property_readonly("found_gradient", &NativeOptimizer::found_gradient,
                             "True if any parameter had a gradient at the last step.")
      .def_property_readonly("is_open", &NativeOptimizer::is_open,
                             "True if release() has begun a step that apply() has not ended.")
      .def_property_readonly(
          "was_skipped", [](const NativeOptimizer& optimizer) { return optimizer.last_step().skipped; },
          "True if the last step was skipped.")
      .def_property_readonly(
          "gradient_norm", [](const NativeOptimizer& optimizer) { return optimizer.last_step().gradient_norm; },
          "Of the last step, if it was wanted.")
      .def_property_readonly(
          "clip_coefficient", [](const NativeOptimizer& optimizer) { return optimizer.last_step().clip_coefficient; },
          "Of the last step.");
}

}  // namespace clr
