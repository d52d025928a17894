// Where the cycles of a schedule end.
#pragma once

#include "core/portable.h"

namespace clr {

// A stretch of a schedule in which cycles have one length. It lasts to where the next one begins.
struct CycleSpan {
  uint64_t first;            // the step at which it begins: 0 for the first span, rising from there
  uint64_t length;           // of a cycle, in steps; 0: no cycle ends in this span
  bool repeats;              // True if cycles follow each other; else the span holds one
  uint64_t complete_before;  // the cycles that are complete where it begins
};

// All cycles of a schedule: at least one span, or none where nobody asks for them.
struct Cycles {
  const CycleSpan* spans;
  uint64_t count;
};

// Where a step stands among cycles.
struct CyclePosition {
  uint64_t complete;  // the cycles that end at or before this step
  bool at_end;        // True if the update before this step was the last one of a cycle
};

// A step at which one span ends and the next begins belongs to the first of the two, whose last cycle may end there.
CLR_INLINE CyclePosition cycle_position(const Cycles& cycles, uint64_t step) {
  uint64_t i = 0;
  while (i + 1 < cycles.count && cycles.spans[i + 1].first < step) ++i;
  const CycleSpan& span = cycles.spans[i];
  const uint64_t own = step - span.first;
  if (span.length == 0) return {span.complete_before, false};
  const uint64_t done = own / span.length;
  if (span.repeats) return {span.complete_before + done, own != 0 && own % span.length == 0};
  return {span.complete_before + (done != 0 ? 1 : 0), own == span.length};
}

}  // namespace clr
