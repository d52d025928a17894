// A step as integers and pointers: the slots to update and the numbers for them, which can be cut into equal parts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/cycles.h"
#include "core/progress.h"
#include "core/shared_numbers.h"
#include "kernel/strided.h"

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

// A parameter group as its owner keeps it, for an executor that advances the group's state by itself.
struct GroupRecord {
  const GroupSettings* settings;
  const GroupProgress* progress;
  std::uint64_t group_id;          // of the owner's group, which keeps it when it is bound anew
  std::uint64_t binding_id;        // different for each group
  std::uint64_t position_version;  // changes when the owner moves the group; no other group has it
};

// The numbers of this process, which its owner adds up with those of others, and where they lie.
struct SharedNumbers {
  double* numbers = nullptr;  // where the parameters lie; null if nothing is added up
  int device = -1;            // the number of the CUDA device that they are on; -1: this processor's memory
  std::size_t count = 0;
  std::vector<std::uint32_t> sums;  // the places of the sums
  std::vector<SharedPlaces> slots;  // one a slot
};

// The results of the scale function of a piece for the numbers first, first + 1, ...
struct TabulatedScales {
  const Piece* piece;
  std::uint64_t first;
  std::vector<double> scales;
  bool ends;  // True if the function has no result for the next number
};

class StepPlan {
 public:
  GradientValues gradients;
  std::vector<GroupValues> groups;
  std::vector<Slot> slots;
  std::vector<StridedCopy> copies;   // of tensors with gaps, in the order of slots
  std::vector<Range> copied;         // memory of the tensors that were copied and are written back
  bool in_order = false;             // True if some slots share memory: their updates must follow each other as listed
  bool trusts = false;               // True if any slot takes a trust ratio
  bool makes_state = false;          // True if tensors of the state are new
  bool is_shared = false;            // True if other processes hold other parts of the model
  SharedNumbers shared;              // of a step whose rules look at all gradients of all processes
  std::size_t device_slots = 0;      // slots on CUDA devices
  std::size_t parameter_count = 0;   // of all groups, whether they have a slot or not
  std::vector<GroupRecord> records;  // of the groups, where slots are on devices
  Cycles cycles = {};                // of the first group's schedule; the same
  std::vector<TabulatedScales> scales;  // of all pieces with a scale function; the same
  std::uint64_t scales_version = 0;     // changes with them

  // Returns the bytes of all parameters of the work list.
  std::int64_t parameter_bytes() const;

  // Fills `cuts` with `parts` + 1 places that cut the work list into ranges of about equal bytes, each on a cache line
  // of its parameter. Reuses the memory of `cuts`.
  void cut(int parts, std::vector<Cut>& cuts) const;

  // True if any two written arrays, or their originals, overlap.
  bool has_overlap() const;
};

}  // namespace clr
