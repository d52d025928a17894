// Policies and their values, for python/clr_native/schedules/, which has checked every argument.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu/bulk.h"
#include "cpu/isa.h"
#include "python/bindings.h"
#include "python/scheduler/bound_schedule.h"

namespace clr {

namespace {

using Values = py::array_t<double, py::array::c_style>;
using Steps = py::array_t<std::int64_t, py::array::c_style>;

// Each list has the names of an enumeration in its order.
constexpr std::array<const char*, 3> kWindows = {"triangular", "welch", "hann"};
constexpr std::array<const char*, 4> kCurves = {"cycles", "rise", "fall", "exponential"};
constexpr std::array<const char*, 6> kModes = {"triangular", "triangular2",  "exp_range",
                                               "exp_cycle",  "linear_range", "scale_fn"};

template <class Enum, std::size_t n>
Enum named(const std::array<const char*, n>& names, const std::string& name, const char* what) {
  for (std::size_t i = 0; i < n; ++i) {
    if (name == names[i]) return static_cast<Enum>(i);
  }
  throw py::value_error(std::string(what) + "='" + name + "' is unknown");
}

// Makes a policy with the boundaries that every policy has. A momentum of NaN means that the policy has none.
Policy with_boundaries(double base_lr, double max_lr, std::optional<double> base_momentum,
                       std::optional<double> max_momentum, const std::string& window) {
  Policy p{};
  p.base_lr = base_lr;
  p.lr_amplitude = two_sum(max_lr, -base_lr);
  p.base_momentum = base_momentum.value_or(std::nan(""));
  p.max_momentum = max_momentum.value_or(p.base_momentum);
  p.momentum_amplitude = two_sum(p.max_momentum, -p.base_momentum);
  p.window = named<Window>(kWindows, window, "window");
  p.up = p.down = p.decay_steps = 1;
  return p;
}

Policy make_cycles(std::uint64_t up, std::uint64_t down, double base_lr, double max_lr,
                   std::optional<double> base_momentum, std::optional<double> max_momentum, const std::string& window,
                   const std::string& mode, double gamma, std::uint64_t decay_steps, bool decay_base,
                   bool scale_by_cycle) {
  Policy p = with_boundaries(base_lr, max_lr, base_momentum, max_momentum, window);
  p.curve = CurveKind::cycles;
  p.up = up;
  p.down = down;
  p.decay_steps = decay_steps;
  p.mode = named<Mode>(kModes, mode, "mode");
  if (p.mode == Mode::power_of_step || p.mode == Mode::power_of_cycle) p.log_gamma = logarithm(gamma);
  p.custom_by_cycle = scale_by_cycle;
  p.base_decay = decay_base ? 1.0 : 0.0;
  return p;
}

using Pair = std::pair<double, double>;  // a double-double

Policy make_ramp(const std::string& curve, double base_lr, double max_lr, Pair lead, Pair length,
                 std::optional<double> base_momentum, std::optional<double> max_momentum, const std::string& window) {
  Policy p = with_boundaries(base_lr, max_lr, base_momentum, max_momentum, window);
  p.curve = named<CurveKind>(kCurves, curve, "curve");
  p.lead = fast_two_sum(lead.first, lead.second);
  p.length = fast_two_sum(length.first, length.second);
  if (p.curve == CurveKind::exponential) p.log_gamma = add(logarithm(max_lr), negated(logarithm(base_lr)));
  return p;
}

template <class Part>
void require_order(const std::vector<Part>& parts, const char* name) {
  if (parts.empty()) throw py::value_error(std::string(name) + "=[] must hold at least one");
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i == 0 ? parts[i].first != 0 : parts[i].first <= parts[i - 1].first) {
      throw py::value_error(std::string(name) + " must start at step 0 and rise");
    }
  }
}

BoundSchedule make_schedule(const std::vector<std::tuple<std::uint64_t, std::uint64_t, Policy>>& pieces,
                            const std::vector<std::tuple<std::uint64_t, std::uint64_t, bool, std::uint64_t>>& spans,
                            std::uint64_t end) {
  std::vector<Piece> bound;
  bound.reserve(pieces.size());
  for (const auto& [first, last, policy] : pieces) bound.push_back({first, last, policy});
  require_order(bound, "pieces");
  std::vector<CycleSpan> cycles;
  cycles.reserve(spans.size());
  for (const auto& [first, length, repeats, complete] : spans) cycles.push_back({first, length, repeats, complete});
  require_order(cycles, "spans");
  return BoundSchedule(std::move(bound), std::move(cycles), end);
}

py::tuple checked_value(const BoundSchedule& schedule, std::uint64_t step, const py::tuple& scale_fns) {
  const ScheduleView& view = schedule.view();
  const Value value = view.value(step, scale_fns);
  return py::make_tuple(value.lr, value.momentum, is_valid(view.pieces, view.count, step, value));
}

std::pair<std::uint64_t, bool> position_at(const BoundSchedule& schedule, std::uint64_t step) {
  const CyclePosition position = schedule.view().cycle_position(step);
  return {position.complete, position.at_end};
}

// (row, column) of the first invalid value, or None.
using Invalid = std::optional<std::pair<std::int64_t, std::int64_t>>;
using Scales = std::vector<std::optional<Values>>;

Invalid fill_rows(const std::vector<BoundSchedule*>& schedules, const BulkSteps& steps, const Scales& scales,
                  Values& lr, Values& momentum) {
  const auto rows_wanted = static_cast<py::ssize_t>(schedules.size());
  if (scales.size() != schedules.size()) throw py::value_error("scales must be as many as schedules");
  for (const Values* array : {&lr, &momentum}) {
    if (array->ndim() != 2 || array->shape(0) != rows_wanted || array->shape(1) != steps.count) {
      throw py::value_error("lr and momentum must be of shape (" + std::to_string(rows_wanted) + ", " +
                            std::to_string(steps.count) + ")");
    }
  }
  for (std::size_t g = 0; g < schedules.size(); ++g) {
    if (schedules[g]->view().calls_back && (!scales[g] || scales[g]->size() != steps.count)) {
      throw py::value_error("scales must hold " + std::to_string(steps.count) + " numbers for every scale_fn");
    }
  }
  if (lr.size() == 0) return {};
  std::vector<BulkRow> rows;
  for (std::size_t g = 0; g < schedules.size(); ++g) {
    const auto row = static_cast<py::ssize_t>(g);
    const ScheduleView& schedule = schedules[g]->view();
    rows.push_back({schedule.pieces, schedule.count, scales[g] ? scales[g]->data() : nullptr, lr.mutable_data(row, 0),
                    momentum.mutable_data(row, 0)});
  }
  const py::gil_scoped_release release;
  if (!fill(rows, steps, *selected_isa().kernels)) throw std::runtime_error("torch's thread pool failed");
  const BulkPlace place = first_invalid(rows, steps);
  return place.row < 0 ? Invalid() : Invalid({place.row, place.column});
}

Invalid fill_range(const std::vector<BoundSchedule*>& schedules, std::uint64_t first, const Scales& scales, Values lr,
                   Values momentum) {
  const std::int64_t count = lr.ndim() == 2 ? lr.shape(1) : 0;
  return fill_rows(schedules, {first, nullptr, count}, scales, lr, momentum);
}

Invalid fill_steps(const std::vector<BoundSchedule*>& schedules, const Steps& steps, const Scales& scales, Values lr,
                   Values momentum) {
  return fill_rows(schedules, {0, steps.data(), steps.size()}, scales, lr, momentum);
}

}  // namespace

void bind_schedule(py::module_& m) {
  m.attr("WINDOWS") = py::make_tuple(kWindows[0], kWindows[1], kWindows[2]);
  py::class_<Policy>(m, "Policy", "One piece of a schedule in numbers, checked and ready for evaluation.")
      .def_static("cycles", &make_cycles, py::kw_only(), py::arg("up"), py::arg("down"), py::arg("base_lr"),
                  py::arg("max_lr"), py::arg("base_momentum"), py::arg("max_momentum"), py::arg("window"),
                  py::arg("mode"), py::arg("gamma"), py::arg("decay_steps"), py::arg("decay_base"),
                  py::arg("scale_by_cycle"), "A cyclical policy.")
      .def_static(
          "ramp", &make_ramp, py::kw_only(), py::arg("curve"), py::arg("base_lr"), py::arg("max_lr"), py::arg("lead"),
          py::arg("length"), py::arg("base_momentum"), py::arg("max_momentum"), py::arg("window"),
          "Once through `length` steps, of which `lead` lie before step 0, both sums of two floats. Exponential: "
          "from base_lr to max_lr.");
  py::class_<BoundSchedule>(m, "Schedule", "Policies that follow each other.")
      .def(py::init(&make_schedule), py::arg("pieces"), py::arg("spans"), py::arg("end"),
           "pieces: (first step, the policy's own last step, policy). spans: (first step, length of a cycle or 0, True "
           "if cycles follow each other, cycles complete before). end: the first step to warn of.")
      .def("value", &checked_value, py::arg("step"), py::arg("scale_fns"),
           "(lr, momentum, True if an optimizer may be given them); momentum is NaN where there is none.")
      .def("cycle_position", &position_at, py::arg("step"),
           "(cycles complete before update `step`, True if the update before it was the last of a cycle).")
      .def_property_readonly(
          "is_constant", [](const BoundSchedule& schedule) { return schedule.view().is_constant; },
          "True if every step has the same value.");
  m.def("fill_range", &fill_range, py::arg("schedules"), py::arg("first"), py::arg("scales"), py::arg("lr").noconvert(),
        py::arg("momentum").noconvert(),
        "Fill lr[G, S] and momentum[G, S] for S steps from `first` on; (row, column) of the first invalid value.");
  m.def("fill_steps", &fill_steps, py::arg("schedules"), py::arg("steps"), py::arg("scales"), py::arg("lr").noconvert(),
        py::arg("momentum").noconvert(), "The same for an int64 array of steps.");
}

}  // namespace clr
