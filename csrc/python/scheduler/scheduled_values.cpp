#include "python/scheduler/scheduled_values.h"

#include <algorithm>

#include "cpu/isa.h"

namespace clr {

namespace {

bool is_one_policy(const ScheduleView& schedule) {
  return schedule.count == 1 && schedule.pieces->last >= kLastStep &&
         schedule.pieces->policy.curve == CurveKind::cycles && !schedule.calls_back;
}

}  // namespace

std::uint32_t ScheduledValues::add(const py::object& schedule, const py::object& scale_fns, std::size_t group) {
  const std::size_t place = sources_.size();
  sources_.push_back({schedule, scale_fns, schedule.cast<const BoundSchedule&>().view(), group, 0, {}, {}});
  policies_.push_back(sources_.back().bound.pieces->policy);
  next_.emplace_back();
  last_.emplace_back();
  if (is_one_policy(sources_.back().bound)) {
    // Neighbouring sources that move alike share most of the arithmetic.
    const bool goes_on = sources_[run_].run > 0 && run_ + static_cast<std::size_t>(sources_[run_].run) == place &&
                         moves_alike(policies_[run_], policies_[place]);
    if (!goes_on) run_ = place;
    ++sources_[run_].run;
  }
  return static_cast<std::uint32_t>(place);
}

void ScheduledValues::prepare(std::uint64_t step, bool warn) {
  if (step > kLastStep) {
    throw py::value_error("last_epoch=" + std::to_string(step) + " must be from 0 to 2**63 - 2");
  }
  if (warn) warn_of_end(step);
  evaluate(step);
  check(step);
  for (std::size_t s = 0; s < sources_.size(); ++s) {
    sources_[s].lr = py::float_(next_[s].lr);
    const bool same = s > 0 && next_[s - 1].momentum == next_[s].momentum;
    sources_[s].momentum = same                     ? sources_[s - 1].momentum
                           : has_momentum(next_[s]) ? py::object(py::float_(next_[s].momentum))
                                                    : py::object();
  }
}

void ScheduledValues::evaluate(std::uint64_t step) {
  for (std::size_t s = 0; s < sources_.size(); ++s) {
    if (sources_[s].run == 0) {
      next_[s] = sources_[s].bound.value(step, sources_[s].scale_fns);
      continue;
    }
    selected_isa().kernels->evaluate_alike(&policies_[s], sources_[s].run, step, &next_[s]);
    s += static_cast<std::size_t>(sources_[s].run) - 1;
  }
}

void ScheduledValues::check(std::uint64_t step) const {
  for (std::size_t s = 0; s < sources_.size(); ++s) {
    const NamedPosition position = {sources_[s].first, "last_epoch", step};
    position.require_lr(next_[s].lr);
    if (has_momentum(next_[s])) position.require_momentum(next_[s].momentum);
  }
}

// Warns once, for the first group that is at the end of its schedule.
void ScheduledValues::warn_of_end(std::uint64_t step) const {
  const auto over = std::find_if(sources_.begin(), sources_.end(),
                                 [step](const ScheduleInUse& source) { return step == source.bound.end; });
  if (over != sources_.end()) NamedPosition{over->first, "last_epoch", step}.warn_of_end();
}

int ScheduledValues::traverse(visitproc visit, void* arg) const {
  for (const ScheduleInUse& source : sources_) {
    Py_VISIT(source.schedule.ptr());
    Py_VISIT(source.scale_fns.ptr());
  }
  return 0;
}

}  // namespace clr
