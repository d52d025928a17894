// The work of launches on one device: a table of slots, cut into chunks.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "cuda/chunks.h"
#include "cuda/device_tables.h"
#include "kernel/plan.h"

namespace clr {

// True if two tables of slots have the same bytes.
bool are_same(const std::vector<Slot>& a, const std::vector<Slot>& b);

class WorkTable {
 public:
  // Sets the slots of the next launches. `in_order`: True if one block must update the slots one after another. Copies
  // only what has changed. `copies`: a count of the tables of slots that the optimizer has copied so far.
  void set(DeviceTables& tables, CUstream stream, const std::vector<Slot>& slots, const SharedNumbers& shared,
           bool in_order, std::uint32_t& copies);
  bool has(const std::vector<Slot>& slots) const { return are_same(slots, slots_); }

  // What launches that measure gradients are told.
  const DeviceWork& measured() const { return device_; }
  // What launches that update parameters are told.
  DeviceWork updated() const;
  bool in_order() const { return in_order_; }
  // Returns the dtype of all slots if `step` makes a plain update of tensors of one dtype. The launch then asks nothing
  // more of the device.
  std::optional<DType> plain_dtype(const DeviceStep& step) const;

 private:
  void lay_out(DeviceTables& tables, const std::vector<Slot>& slots);
  void copy_slots(DeviceTables& tables, CUstream stream, const std::vector<Slot>& slots);
  void copy_shared(DeviceTables& tables, CUstream stream, const SharedNumbers& shared);

  std::vector<Slot> slots_;  // as last copied, as are the next two
  std::vector<SharedPlaces> places_;
  std::vector<std::uint32_t> sums_;
  DeviceMemory memory_, shared_memory_;
  DeviceWork device_{};
  Chunks chunks_;                   // kept for its memory
  std::optional<DType> one_dtype_;  // of all slots; none if their dtypes differ, or there are no slots
  bool in_order_ = false;
};

}  // namespace clr
