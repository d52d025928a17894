// A schedule as Python holds it.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "core/cycles.h"
#include "core/piece.h"
#include "cpu/isa.h"

namespace clr {

namespace py = pybind11;

constexpr std::uint64_t kLastStep = INT64_MAX - 1;

// What is asked of a schedule at every step, without its memory: a group keeps one by value, beside what else it needs.
struct ScheduleView {
  const Piece* pieces;
  std::uint64_t end;       // the first step that it was not made for, of which users are warned; UINT64_MAX for none
  bool calls_back;         // True if value() calls a user's function
  bool may_have_momentum;  // True if any momentum can be other than zero
  bool is_constant;        // True if every step has the same value
  bool may_leave_bounds;   // True if a value can be one that no optimizer may be given
  std::size_t count;       // of pieces, at least one
  const CycleSpan* spans;
  std::size_t span_count;  // at least one
  const CpuKernels* kernels;

  // The value of `step`; NaN for a momentum that the schedule leaves alone. `scale_fns`: a tuple with a function for
  // each piece that calls one. Needs the GIL.
  Value value(std::uint64_t step, py::handle scale_fns) const;

  CyclePosition cycle_position(std::uint64_t step) const { return clr::cycle_position(spans, span_count, step); }
};

class BoundSchedule {
 public:
  // At least one piece and one span, the first of each from step 0.
  BoundSchedule(std::vector<Piece> pieces, std::vector<CycleSpan> spans, std::uint64_t end);
  BoundSchedule(BoundSchedule&&) = default;  // pieces and spans stay where they are

  // Valid as long as this object.
  const ScheduleView& view() const { return view_; }

 private:
  std::vector<Piece> pieces_;
  std::vector<CycleSpan> spans_;
  ScheduleView view_;
};

// Does the value have a momentum?
inline bool has_momentum(const Value& value) { return value.momentum == value.momentum; }

}  // namespace clr
