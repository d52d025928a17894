// The scale functions of schedules, called ahead for devices, which cannot call them.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "kernel/plan.h"
#include "python/optimizer/groups.h"

namespace clr {

class ScaleTables {
 public:
  // Calls the functions of all groups for what updates will need from where the groups stand: 64 cycles, or 1,024
  // iterations. Does so only where less than half of that is left; returns true then. A table ends where a function
  // raises an error, unless the next update needs that number: then the error is thrown. Runs Python.
  bool refill(const BoundGroups& groups);

  const std::vector<TabulatedScales>& tables() const { return tables_; }
  // A number that changes with the tables.
  std::uint64_t version() const { return version_; }

  int traverse(visitproc visit, void* arg) const;
  void clear();

 private:
  std::vector<TabulatedScales> tables_;
  std::vector<py::object>
      functions_;  // of the tables: another schedule's piece may have the address of one that is gone
  std::uint64_t version_ = 0;
};

}  // namespace clr
