// A schedule as a Python object holds it.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/cycles.h"
#include "core/piece.h"
#include "cpu/isa.h"

namespace clr {

namespace py = pybind11;

constexpr std::uint64_t kLastStep = INT64_MAX - 1;

// The part of a schedule that every step reads, without its memory. A group keeps one by value, next to the other data
// that a step reads.
struct ScheduleView {
  const Piece* pieces;
  std::uint64_t end;       // the first step past the schedule, where users are warned; UINT64_MAX for none
  bool calls_back;         // True if value() calls a user's function
  bool may_have_momentum;  // True if any momentum can be other than zero
  bool is_constant;        // True if every step has the same value
  bool may_leave_bounds;   // True if a value can be one that no optimizer may be given
  std::size_t count;       // of pieces, at least one
  Cycles cycles;
  const CpuKernels* kernels;

  // Returns the value of `step`. Its momentum is NaN if the schedule has none. `scale_fns`: a tuple with a function at
  // the index of each piece that calls one. Needs the GIL.
  Value value(std::uint64_t step, py::handle scale_fns) const;

  CyclePosition cycle_position(std::uint64_t step) const { return clr::cycle_position(cycles, step); }
};

class BoundSchedule {
 public:
  // There must be at least one piece and one span. The first of each must start at step 0.
  BoundSchedule(std::vector<Piece> pieces, std::vector<CycleSpan> spans, std::uint64_t end);
  BoundSchedule(BoundSchedule&&) = default;  // pieces and spans keep their addresses

  // Returns a view that is valid as long as this object.
  const ScheduleView& view() const { return view_; }

 private:
  std::vector<Piece> pieces_;
  std::vector<CycleSpan> spans_;
  ScheduleView view_;
};

// Calls a scale function. Throws TypeError if its result is no number.
double called_scale(std::uint64_t argument, const py::object& scale_fn);

// The position of a parameter group in its schedule, as errors and warnings name it.
struct NamedPosition {
  std::size_t group;
  const char* counter;  // the user's name for the step: applied_steps or last_epoch
  std::uint64_t step;

  // Throws ValueError: a value of this name must be something else.
  [[noreturn]] void refuse(const char* name, double value, const char* must) const;
  void require_lr(double lr) const {
    if (!is_valid_lr(lr)) refuse("lr", lr, "finite and not negative");
  }
  void require_momentum(double momentum) const {
    if (!is_valid_momentum(momentum)) refuse("momentum", momentum, "between 0 and 1");
  }
  // Warns that the schedule is over. Runs Python.
  void warn_of_end() const;

  std::string text() const { return std::string(counter) + "=" + std::to_string(step); }
};

// True if the value has a momentum.
inline bool has_momentum(const Value& value) { return value.momentum == value.momentum; }

}  // namespace clr
