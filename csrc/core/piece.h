// A schedule as policies that follow each other.
#pragma once

#include <math.h>

#include "core/schedule.h"

namespace clr {

// The results of a scale function for the numbers first, first + 1, ...: for devices, which cannot call it.
struct ScaleTable {
  const double* scales;
  uint64_t first, count;
};

struct Piece {
  uint64_t first;  // the step of the schedule that is this policy's step 0; 0 in the first piece, rising from there
  uint64_t last;   // this policy's own step at which it stops moving: from there on its value is held
  Policy policy;
  ScaleTable table = {};  // Mode::custom, on a device
};

// Returns the piece that `step` falls into.
CLR_INLINE const Piece& piece_at(const Piece* pieces, size_t count, uint64_t step) {
  size_t low = 0;
  while (count > 1) {
    const size_t half = count / 2;
    low += pieces[low + half].first <= step ? half : 0;
    count -= half;
  }
  return pieces[low];
}

// Returns the policy's own number of `step`.
CLR_INLINE uint64_t step_in(const Piece& piece, uint64_t step) {
  const uint64_t own = step - piece.first;
  return own < piece.last ? own : piece.last;
}

// Returns the scale for the number `n`. If it is not in the table, an infinity, with which no value is valid.
CLR_INLINE double scale_in(const ScaleTable& table, uint64_t n) {
  return n - table.first < table.count ? table.scales[n - table.first] : HUGE_VAL;
}

// True if an optimizer can use the value of `step`. A momentum of NaN is right only if the policy has none.
CLR_INLINE bool is_valid(const Piece* pieces, size_t count, uint64_t step, Value value) {
  return is_valid_lr(value.lr) &&
         (is_valid_momentum(value.momentum) || !has_momentum(piece_at(pieces, count, step).policy));
}

}  // namespace clr
