#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "python/bindings.h"
#include "python/optimizer/averages_in_place.h"
#include "python/optimizer/optimizer.h"
#include "python/torch/gc_support.h"

namespace clr {

namespace {

bool is_on_gpu(const py::object& object) {
  const TorchReader& torch = TorchReader::get();
  DLTensor view;
  return torch.is_tensor(object.ptr()) && torch.read(object.ptr(), view) && view.device.device_type == kDLCUDA;
}

bool is_readable(const py::object& tensor) {
  DLTensor view;
  return TorchReader::get().read(tensor.ptr(), view);
}

// What a GradScaler has on a device.
DeviceNumber device_number(const py::object& tensor, const char* name) {
  if (tensor.is_none()) return {};
  const DLTensor view = must_read(tensor, name);
  const Layout layout(view);
  if (layout.size() != 1 || dtype_of(layout, tensor, name) != DType::float32) {
    throw py::value_error(std::string(name) + " of " + described(tensor, "dtype") + " and " +
                          described(tensor, "shape") + " must be one torch.float32 number");
  }
  return {static_cast<float*>(data_of(view)), view.device.device_id};
}

bool apply(Step& step, const py::list& groups, const py::dict& state, const py::object& scale,
           const py::object& found_inf, const py::object& report_inf) {
  StepRequest request = {1.0, false};
  const bool device_scale = !PyFloat_Check(scale.ptr());
  if (device_scale) {
    request.grad_scale = device_number(scale, "grad_scale");
  } else {
    request.scale = scale.cast<double>();
  }
  if (TorchReader::get().is_tensor(found_inf.ptr())) {
    request.device_found_inf = device_number(found_inf, "found_inf");
  } else {
    request.found_inf = found_inf.cast<std::optional<bool>>();
  }
  request.report_inf = device_number(report_inf, "found_inf");
  return step.apply(groups, state, request);
}

void set_rules(Step& step, double max_norm, double max_value, bool error_if_nonfinite, bool skip_nonfinite,
               bool advance_on_skip, bool write_unscaled) {
  step.rules = {max_norm, max_value, error_if_nonfinite, skip_nonfinite, advance_on_skip, write_unscaled};
}

// The dtypes, by name, of the tensors that steps keep for a parameter of this dtype.
py::dict state_dtypes(const py::dict& group, const std::string& parameter) {
  GroupSettings settings{};
  GroupProgress progress{};
  const GroupOptions options = read_options({group.ptr(), 0}, settings, progress);
  for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16}) {
    if (parameter != name_of(dtype)) continue;
    const char* const wide = name_of(companion_dtype(dtype, options.storage));
    py::dict dtypes;
    for (const char* const name : kStateTensors) dtypes[name] = wide;
    dtypes[kStateTensors[0]] = name_of(options.buffer_dtype(dtype));
    return dtypes;
  }
  throw py::type_error("dtype=" + parameter + " must be float32, float64, bfloat16 or float16");
}

// The schedule of a bound group, and whether its dict is still the one that stands there; None for an unknown group.
py::object schedule_of(const Step& step, const py::dict& group) {
  const BoundGroup* const bound = step.binding(group);
  if (bound == nullptr) return py::none();
  return py::make_tuple(bound->schedule(), bound->holds_bound_schedule());
}

BoundGroup& bound_group(const Step& step, const py::dict& group) {
  BoundGroup* const bound = step.binding(group);
  if (bound == nullptr) throw py::key_error("this parameter group is not bound");
  return *bound;
}

py::tuple standing(const Step& step, const py::dict& group) {
  const BoundGroup::Standing standing = bound_group(step, group).standing();
  return py::make_tuple(standing.is_overridden, standing.lr,
                        standing.momentum ? standing.momentum : py::object(py::none()));
}

}  // namespace

void bind_step(py::module_& m) {
  m.attr("STATE_TENSORS") = py::make_tuple(kStateTensors[0], kStateTensors[1], kStateTensors[2], kStateTensors[3]);
  m.def("state_dtypes", &state_dtypes, py::arg("group"), py::arg("parameter_dtype"),
        "The dtype, by name, of each of STATE_TENSORS for a parameter of this dtype.");
  m.def("is_readable", &is_readable, py::arg("tensor"), "True if a tensor has memory of its own that a step can read.");
  m.def("is_on_gpu", &is_on_gpu, py::arg("tensor"), "Is this a tensor on a CUDA device?");
  // It refers to a method of the optimizer, which holds it.
  py::class_<AveragesInPlace>(m, "AveragesInPlace", "Puts averages into the place of weights for a `with` block.",
                              collected<AveragesInPlace>())
      .def(py::init<py::object>(), py::arg("entries"),
           "entries: a function that gives a list of (parameter, average, master weight or None).")
      .def("__enter__", &AveragesInPlace::enter)
      .def("__exit__", [](AveragesInPlace& averages, const py::args&) { averages.leave(); })
      .def_property_readonly("is_inside", &AveragesInPlace::is_inside, "True within the block.");
  // It refers to parameters and to a user's scale_fn, which may refer to the optimizer.
  py::class_<Step>(m, "Step", "A cached plan of the updates of one optimizer.", collected<Step>())
      .def(py::init<>())
      .def("bind", &Step::bind, py::arg("index"), py::arg("group"), py::arg("schedule"),
           "Take group number `index` over, with its schedule, and check its settings.")
      .def("schedule_of", &schedule_of, py::arg("group"),
           "The schedule that a group was bound to and True if its dict stands there still; None for an unknown group.")
      .def("standing", &standing, py::arg("group"),
           "(True, lr, momentum) as they stand in a bound group if they are not the schedule's, else (False, and those "
           "of the schedule). momentum is None where the schedule has none.")
      .def(
          "write_schedule", [](const Step& step, const py::dict& group) { bound_group(step, group).write_schedule(); },
          py::arg("group"), "Write the schedule's lr and momentum into a bound group.")
      .def(
          "check_values", [](const Step& step, const py::dict& group) { bound_group(step, group).check_values(); },
          py::arg("group"), "Raise what a step would about the lr and momentum that stand in a bound group.")
      .def(
          "set_warns", [](Step& step, bool warns) { step.warns = warns; }, py::arg("warns"),
          "False: a step warns of no driver and of no missing gradient, and counts none.")
      .def("is_bound", &Step::is_bound, py::arg("index"), py::arg("group"),
           "Is this the dict, with the schedule, that was bound as number `index`?")
      .def("set_rules", &set_rules, py::kw_only(), py::arg("max_norm"), py::arg("max_value"),
           py::arg("error_if_nonfinite"), py::arg("skip_nonfinite"), py::arg("advance_on_skip"),
           py::arg("write_unscaled"), "What holds for all gradients; 0 for no clipping.")
      .def("apply", &apply, py::arg("groups"), py::arg("state"), py::arg("scale") = 1.0, py::arg("found_inf") = false,
           py::arg("report_inf") = py::none(),
           "Apply one update, or skip it. False, with nothing done, if a group is not bound. scale: what gradients are "
           "multiplied by, or, on a GPU, the scale of the loss there. found_inf: "
           "None for to be found out; report_inf: where, on a GPU.")
      .def("synchronise", &Step::synchronise, py::arg("state"),
           "Wait for the devices and put what they have counted into the groups.")
      .def("adopt", &Step::adopt, py::arg("other"), "Go on with the tables that another step has on devices.")
      .def("release", &Step::release, py::arg("groups"), py::arg("state"), py::arg("parameter"), py::arg("position"),
           "Apply this step's update to one parameter, number `position`, before apply() ends the step.")
      .def_property_readonly("is_open", &Step::is_open, "Has release() begun a step that apply() has not ended?")
      .def_property_readonly("was_skipped", &Step::was_skipped, "Was the last step skipped?")
      .def_property_readonly("gradient_norm", &Step::gradient_norm, "Of the last step, if it was wanted.")
      .def_property_readonly("clip_coefficient", &Step::clip_coefficient, "Of the last step.")
      .def("followed_schedule", &Step::followed_schedule, py::arg("group"),
           "Did this group's last update follow its schedule?");
}

}  // namespace clr
