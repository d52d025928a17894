// A schedule's policy as Python holds it.
#pragma once

#include <pybind11/pybind11.h>

#include "core/schedule.h"

namespace clr {

namespace py = pybind11;

struct BoundPolicy {
  Policy policy;
  bool scale_by_cycle;  // Mode::custom: the scale is a function of the cycle (from 1), else of the step (from 0)

  uint64_t scale_argument(uint64_t step) const { return scale_by_cycle ? position_of(policy, step).cycle + 1 : step; }

  bool has_momentum() const { return policy.base_momentum == policy.base_momentum; }

  // Can any momentum of this policy be other than zero?
  bool may_have_momentum() const {
    return has_momentum() && (policy.base_momentum != 0.0 || policy.momentum_amplitude.hi != 0.0);
  }

  // The value of `step`; calls scale_fn (may be null outside Mode::custom) once. Needs the GIL.
  Value value(uint64_t step, py::handle scale_fn) const;
};

}  // namespace clr
