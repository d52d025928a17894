// The values that the groups of an optimizer have at a step of their schedules.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "core/schedule.h"
#include "python/scheduler/bound_schedule.h"

namespace clr {

// A schedule that one group or several follow.
struct ScheduleInUse {
  py::object schedule, scale_fns;
  ScheduleView bound;       // of schedule
  std::size_t first;        // of its groups, which messages name
  std::int64_t run = 0;     // number of sources from this one on that move alike; 0: evaluated by itself
  py::object lr, momentum;  // its values as Python's numbers; momentum: null for none
};

// All functions need the GIL.
class ScheduledValues {
 public:
  // Adds a schedule and returns its number. `group`: the first group that follows it.
  std::uint32_t add(const py::object& schedule, const py::object& scale_fns, std::size_t group);

  // Computes and checks the values of all sources at `step`. Runs a user's scale functions. Warns of the end of a
  // schedule if `warn`.
  void prepare(std::uint64_t step, bool warn);

  // Makes the prepared values the last ones.
  void keep() { last_ = next_; }

  const ScheduleInUse& operator[](std::uint32_t source) const { return sources_[source]; }
  const Value& last(std::uint32_t source) const { return last_[source]; }

  int traverse(visitproc visit, void* arg) const;
  void clear() { sources_.clear(); }

 private:
  void evaluate(std::uint64_t step);
  void check(std::uint64_t step) const;
  void warn_of_end(std::uint64_t step) const;

  std::vector<ScheduleInUse> sources_;
  std::vector<Policy> policies_;    // the first of each source
  std::vector<Value> next_, last_;  // of each source: at the step being prepared, and as last written
  std::size_t run_ = 0;             // where the last run begins
};

}  // namespace clr
