#include "python/scheduler/bound_schedule.h"

#include <algorithm>
#include <utility>

#include "python/torch/group_dict.h"
#include "python/torch/warning.h"

namespace clr {

namespace {

bool is_zero(DoubleDouble x) { return x.hi == 0.0 && x.lo == 0.0; }

// True if the policy has one value at all steps. A scale above 1 may overflow, and then even a policy of zero amplitude
// is not constant.
bool is_constant(const Policy& policy) {
  const bool has_power = policy.mode == Mode::power_of_step || policy.mode == Mode::power_of_cycle;
  return is_zero(policy.lr_amplitude) && (!clr::has_momentum(policy) || is_zero(policy.momentum_amplitude)) &&
         policy.base_decay == 0.0 && policy.mode != Mode::custom && (!has_power || policy.log_gamma.hi <= 0.0);
}

}  // namespace

double called_scale(std::uint64_t argument, const py::object& scale_fn) {
  const py::object result = scale_fn(argument);
  const double scale = PyFloat_AsDouble(result.ptr());
  if (PyErr_Occurred()) {
    PyErr_Clear();
    throw py::type_error("scale_fn(" + std::to_string(argument) + ")=" + py::repr(result).cast<std::string>() +
                         " must be a number");
  }
  return scale;
}

BoundSchedule::BoundSchedule(std::vector<Piece> pieces, std::vector<CycleSpan> spans, std::uint64_t end)
    : pieces_(std::move(pieces)), spans_(std::move(spans)), view_{} {
  const auto any = [this](auto condition) { return std::any_of(pieces_.begin(), pieces_.end(), condition); };
  view_.pieces = pieces_.data();
  view_.count = pieces_.size();
  view_.end = end;
  view_.is_constant = pieces_.size() == 1 && is_constant(pieces_[0].policy);
  view_.cycles = {spans_.data(), spans_.size()};
  view_.kernels = selected_isa().kernels;
  view_.may_leave_bounds = any([](const Piece& piece) { return clr::may_leave_bounds(piece.policy); });
  view_.calls_back = any([](const Piece& piece) { return piece.policy.mode == Mode::custom; });
  view_.may_have_momentum = any([](const Piece& piece) {
    const Policy& policy = piece.policy;
    return clr::has_momentum(policy) && (policy.base_momentum != 0.0 || policy.momentum_amplitude.hi != 0.0);
  });
}

Value ScheduleView::value(std::uint64_t step, py::handle scale_fns) const {
  const Piece& piece = piece_at(pieces, count, step);
  const std::uint64_t own = step_in(piece, step);
  double scale = 1.0;
  if (piece.policy.mode == Mode::custom) {
    const auto number = static_cast<Py_ssize_t>(&piece - pieces);
    scale = called_scale(scale_argument(piece.policy, own),
                         py::reinterpret_borrow<py::object>(PyTuple_GetItem(scale_fns.ptr(), number)));
  }
  return kernels->evaluate(piece.policy, own, scale);
}

void NamedPosition::refuse(const char* name, double value, const char* must) const {
  throw py::value_error(group_label(group) + name + "=" + py::repr(py::float_(value)).cast<std::string>() + " at " +
                        text() + " must be " + must);
}

void NamedPosition::warn_of_end() const {
  warn_user(group_label(group) + text() +
            " is past the end of its schedule, which holds its last value: extend it, or stop");
}

}  // namespace clr
