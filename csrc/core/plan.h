// A step as plain integers and pointers: what to update, with which numbers, cut into equal parts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/slot.h"

namespace clr {

// A place in the work list: element `element` of slot `slot`.
struct Cut {
  std::size_t slot;
  std::int64_t element;
};

// Memory from begin up to end.
struct Range {
  const void *begin, *end;
};

class StepPlan {
 public:
  GradientValues gradients;
  std::vector<GroupValues> groups;
  std::vector<Slot> slots;
  std::vector<Range> copied;  // memory that slots are copies of, written after them
  bool in_order = false;      // some slots share memory: their updates must follow each other as listed

  // Bytes of all parameters of the work list.
  std::int64_t parameter_bytes() const;

  // Fills `cuts` with `parts` + 1 places that cut the work list into ranges of about equal bytes, each on a cache line
  // of its parameter. Reuses the memory of `cuts`.
  void cut(int parts, std::vector<Cut>& cuts) const;

  // Do any two of the written arrays, or of what they are copies of, overlap?
  bool has_overlap() const;
};

}  // namespace clr
