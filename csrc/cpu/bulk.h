// Schedule values in bulk: many policies at many steps.
#pragma once

#include <vector>

#include "cpu/kernels.h"

namespace clr {

// One policy and where its values go.
struct BulkRow {
  Policy policy;
  const double* custom;  // Mode::custom: the scale of each step, else unused
  double *lr, *momentum;
};

// The steps of all rows: `count` from `first` on, or those of an array.
struct BulkSteps {
  uint64_t first;
  const int64_t* array;  // null: consecutive
  int64_t count;
};

// Where the first value stands that no optimizer may be given: lr negative or not finite, momentum outside [0, 1].
struct BulkPlace {
  int64_t row, column;  // -1, -1: nowhere
};

// Fills all rows, in parallel where that pays. Needs no GIL. Returns false if the thread pool failed.
bool fill(const std::vector<BulkRow>& rows, const BulkSteps& steps, const CpuKernels& kernels);

BulkPlace first_invalid(const std::vector<BulkRow>& rows, int64_t count);

}  // namespace clr
