// A schedule as Python holds it.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "core/piece.h"

namespace clr {

namespace py = pybind11;

class BoundSchedule {
 public:
  // At least one piece, the first from step 0. `end`: the first step that the schedule was not made for, of which users
  // are warned; UINT64_MAX for none.
  BoundSchedule(std::vector<Piece> pieces, std::uint64_t end);

  const std::vector<Piece>& pieces() const { return pieces_; }
  std::uint64_t end() const { return end_; }

  // Does value() call a user's function?
  bool calls_back() const { return calls_back_; }

  // Can any momentum of this schedule be other than zero?
  bool may_have_momentum() const { return may_have_momentum_; }

  // The value of `step`; NaN for a momentum that the schedule leaves alone. `scale_fns`: a tuple with a function for
  // each piece that calls one. Needs the GIL.
  Value value(std::uint64_t step, py::handle scale_fns) const;

 private:
  std::vector<Piece> pieces_;
  std::uint64_t end_;
  bool calls_back_, may_have_momentum_;
};

// Does the value have a momentum?
inline bool has_momentum(const Value& value) { return value.momentum == value.momentum; }

}  // namespace clr
