// What a device knows of an optimizer: tables in its memory, and what each launch is told.
#pragma once

#include "core/norm.h"
#include "core/progress.h"

namespace clr {

// What the host may read at any time without waiting for the device: how far it has come.
struct DeviceReport {
  uint64_t applied, skipped;  // updates of this optimizer on this device
  bool last_skipped;          // was the last one?
};

// What stays on the device from step to step.
struct DeviceState {
  const GroupSettings* settings;  // the host writes them
  GroupProgress* progress;        // the host begins it, or moves it; the device writes it after each update
  uint64_t group_count;
  // Does the buffer, and does the average, of the parameter at each position among all hold anything yet?
  bool* buffer_holds;
  bool* average_holds;
  DeviceReport* report;
  // From here on the device writes.
  DeviceReport counts;  // kept here, and copied to report
  // What clr_norm found out about the gradients, for clr_step.
  double norm, clip_coefficient;
  bool finite;
  uint32_t ticket;  // blocks of the running launch that are done
};

// Part of a tensor: elements from `part` * kDeviceChunk on. As large as the chunks in which squares are summed.
struct DeviceChunk {
  uint32_t slot, part;
};
constexpr int64_t kDeviceChunk = kNormChunk;

constexpr int kDeviceThreads = 512;  // of a block, in every launch

// What a launch works on. The chunks of a slot follow each other, in the order of slots.
struct DeviceWork {
  Slot* slots;  // random_key: the position of the parameter among all; trust_ratio: written by clr_norm
  const DeviceChunk* chunks;
  uint64_t slot_count, chunk_count;
  // For clr_norm: scratch for a part of each chunk's gradient, then one of each chunk's parameter (if trust ratios are
  // wanted); and how many chunks the slots before each slot have.
  NormPart* parts;
  const uint64_t* first_chunks;
};

// How this step treats gradients. Frozen where a launch is captured in a graph, what it points to is not.
struct DeviceStep {
  GradientValues gradients;  // scale: unless grad_scale says it
  // One number each, as a GradScaler has them, or null. `found_inf` is read, `report_inf` is written: 1 or 0.
  const float* grad_scale;
  const float* found_inf;
  float* report_inf;
  double max_norm;       // clip_coefficient is to be found out where it is not 0
  bool trusts;           // so are the trust ratios of slots
  bool measured;         // clr_norm ran before
  bool skips_nonfinite;  // an infinity or a NaN that it saw skips the update
  bool skipped;          // the host knows that the update is to be skipped
  bool advances_on_skip;
};

}  // namespace clr
