// Schedule values in bulk: many schedules at many steps.
#pragma once

#include <vector>

#include "core/piece.h"
#include "cpu/kernels.h"

namespace clr {

// One schedule and where its values go.
struct BulkRow {
  const Piece* pieces;
  size_t count;          // of pieces, at least one
  const double* custom;  // Mode::custom: the scale of each step, else unused
  double *lr, *momentum;
};

// The steps of all rows: `count` steps from `first` on, or the steps in an array.
struct BulkSteps {
  uint64_t first;
  const int64_t* array;  // null: consecutive
  int64_t count;

  uint64_t operator[](int64_t i) const {
    return array == nullptr ? first + static_cast<uint64_t>(i) : static_cast<uint64_t>(array[i]);
  }
};

// The place of the first invalid value: an lr that is negative or not finite, or a momentum outside [0, 1].
struct BulkPlace {
  int64_t row, column;  // -1, -1: nowhere
};

// Fills all rows, in parallel if that is faster. Needs no GIL. Returns false if the thread pool failed.
bool fill(const std::vector<BulkRow>& rows, const BulkSteps& steps, const CpuKernels& kernels);

BulkPlace first_invalid(const std::vector<BulkRow>& rows, const BulkSteps& steps);

}  // namespace clr
