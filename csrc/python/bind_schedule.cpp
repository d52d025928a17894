// Policies and their values, for python/clr_native/schedules.py, which has checked every argument.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "cpu/bulk.h"
#include "cpu/isa.h"
#include "python/bindings.h"
#include "python/policy.h"

namespace clr {

namespace {

using Values = py::array_t<double, py::array::c_style>;
using Steps = py::array_t<std::int64_t, py::array::c_style>;

constexpr std::array<const char*, 3> kWindows = {"triangular", "welch", "hann"};
constexpr std::array<const char*, 6> kModes = {"triangular", "triangular2",  "exp_range",
                                               "exp_cycle",  "linear_range", "scale_fn"};

template <class Enum, std::size_t n>
Enum named(const std::array<const char*, n>& names, const std::string& name, const char* what) {
  for (std::size_t i = 0; i < n; ++i) {
    if (name == names[i]) return static_cast<Enum>(i);
  }
  throw py::value_error(std::string(what) + "='" + name + "' is unknown");
}

BoundPolicy make_policy(std::uint64_t up, std::uint64_t down, double base_lr, double max_lr,
                        std::optional<double> base_momentum, std::optional<double> max_momentum,
                        const std::string& window, const std::string& mode, double gamma, std::uint64_t decay_steps,
                        bool decay_base, bool scale_by_cycle) {
  const double low = base_momentum.value_or(std::nan(""));
  Policy p{};
  p.up = up;
  p.down = down;
  p.decay_steps = decay_steps;
  p.base_lr = base_lr;
  p.lr_amplitude = two_sum(max_lr, -base_lr);
  p.base_momentum = low;
  p.max_momentum = max_momentum.value_or(low);
  p.momentum_amplitude = two_sum(p.max_momentum, -low);
  p.window = named<Window>(kWindows, window, "window");
  p.mode = named<Mode>(kModes, mode, "mode");
  if (p.mode == Mode::power_of_step || p.mode == Mode::power_of_cycle) p.log_gamma = logarithm(gamma);
  p.base_decay = decay_base ? 1.0 : 0.0;
  return {p, scale_by_cycle};
}

// (row, column) of the first invalid value, or None.
using Invalid = std::optional<std::pair<std::int64_t, std::int64_t>>;
using Scales = std::vector<std::optional<Values>>;

Invalid fill_rows(const std::vector<BoundPolicy>& policies, const BulkSteps& steps, const Scales& scales, Values& lr,
                  Values& momentum) {
  const auto rows_wanted = static_cast<py::ssize_t>(policies.size());
  if (scales.size() != policies.size()) throw py::value_error("scales must be as many as policies");
  for (const Values* array : {&lr, &momentum}) {
    if (array->ndim() != 2 || array->shape(0) != rows_wanted || array->shape(1) != steps.count) {
      throw py::value_error("lr and momentum must be of shape (" + std::to_string(rows_wanted) + ", " +
                            std::to_string(steps.count) + ")");
    }
  }
  for (std::size_t g = 0; g < policies.size(); ++g) {
    if (policies[g].policy.mode == Mode::custom && (!scales[g] || scales[g]->size() != steps.count)) {
      throw py::value_error("scales must hold " + std::to_string(steps.count) + " numbers for every scale_fn");
    }
  }
  if (lr.size() == 0) return {};
  std::vector<BulkRow> rows;
  for (std::size_t g = 0; g < policies.size(); ++g) {
    const auto row = static_cast<py::ssize_t>(g);
    rows.push_back({policies[g].policy, scales[g] ? scales[g]->data() : nullptr, lr.mutable_data(row, 0),
                    momentum.mutable_data(row, 0)});
  }
  const py::gil_scoped_release release;
  if (!fill(rows, steps, *selected_isa().kernels)) throw std::runtime_error("torch's thread pool failed");
  const BulkPlace place = first_invalid(rows, steps.count);
  return place.row < 0 ? Invalid() : Invalid({place.row, place.column});
}

Invalid fill_range(const std::vector<BoundPolicy>& policies, std::uint64_t first, const Scales& scales, Values lr,
                   Values momentum) {
  const std::int64_t count = lr.ndim() == 2 ? lr.shape(1) : 0;
  return fill_rows(policies, {first, nullptr, count}, scales, lr, momentum);
}

Invalid fill_steps(const std::vector<BoundPolicy>& policies, const Steps& steps, const Scales& scales, Values lr,
                   Values momentum) {
  return fill_rows(policies, {0, steps.data(), steps.size()}, scales, lr, momentum);
}

}  // namespace

Value BoundPolicy::value(uint64_t step, py::handle scale_fn) const {
  double scale = 1.0;
  if (policy.mode == Mode::custom) {
    const uint64_t argument = scale_argument(step);
    const py::object result = scale_fn(argument);
    scale = PyFloat_AsDouble(result.ptr());
    if (PyErr_Occurred()) {
      PyErr_Clear();
      throw py::type_error("scale_fn(" + std::to_string(argument) + ")=" + py::repr(result).cast<std::string>() +
                           " must be a number");
    }
  }
  return selected_isa().kernels->evaluate(policy, step, scale);
}

void bind_schedule(py::module_& m) {
  py::class_<BoundPolicy>(m, "Policy", "A schedule's numbers, checked and ready for evaluation.")
      .def(py::init(&make_policy), py::kw_only(), py::arg("up"), py::arg("down"), py::arg("base_lr"), py::arg("max_lr"),
           py::arg("base_momentum"), py::arg("max_momentum"), py::arg("window"), py::arg("mode"), py::arg("gamma"),
           py::arg("decay_steps"), py::arg("decay_base"), py::arg("scale_by_cycle"))
      .def(
          "value",
          [](const BoundPolicy& self, std::uint64_t step, const py::object& scale_fn) {
            const Value value = self.value(step, scale_fn);
            return py::make_tuple(value.lr, value.momentum);
          },
          py::arg("step"), py::arg("scale_fn") = py::none(), "(lr, momentum) of update number `step`.")
      .def("scale_argument", &BoundPolicy::scale_argument, py::arg("step"), "What scale_fn is called with at `step`.");
  m.def("fill_range", &fill_range, py::arg("policies"), py::arg("first"), py::arg("scales"), py::arg("lr").noconvert(),
        py::arg("momentum").noconvert(),
        "Fill lr[G, S] and momentum[G, S] for S steps from `first` on; (row, column) of the first invalid value.");
  m.def("fill_steps", &fill_steps, py::arg("policies"), py::arg("steps"), py::arg("scales"), py::arg("lr").noconvert(),
        py::arg("momentum").noconvert(), "The same for an int64 array of steps.");
}

}  // namespace clr
