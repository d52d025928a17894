// The data of an optimizer on a device: tables in its memory, and the arguments of each launch.
#pragma once

#include "core/norm.h"
#include "core/progress.h"
#include "core/shared_numbers.h"

namespace clr {

// The progress of the device, which the host may read at any time without waiting.
struct DeviceReport {
  uint64_t applied, skipped;  // updates of this optimizer on this device
  uint64_t refused;           // launches that changed nothing because another process refused the step
  bool last_skipped;          // True if the last update was skipped
};

// The data that stay on the device from step to step.
struct DeviceState {
  const GroupSettings* settings;  // the host writes them
  GroupProgress* progress;        // the host sets it; the device writes it after each update
  uint64_t group_count;
  // True for each position if the buffer, or the average, of the parameter there holds numbers.
  bool* buffer_holds;
  bool* average_holds;
  DeviceReport* report;
  // The device writes the members from here on.
  DeviceReport counts;  // kept here, and copied to report
  // The results of clr_norm, or of clr_share, for clr_step.
  double norm, clip_coefficient;
  bool finite;
  bool refused;     // by another process
  uint32_t ticket;  // number of blocks of the running launch that are done
};

// A part of a tensor: elements from `part` * kDeviceChunk on. It is as large as the chunks in which squares are summed.
struct DeviceChunk {
  uint32_t slot, part;
};
constexpr int64_t kDeviceChunk = kNormChunk;

constexpr int kDeviceThreads = 512;  // of a block, in every launch

// The work of a launch. The chunks of a slot follow each other, in the order of slots.
struct DeviceWork {
  Slot* slots;  // random_key: the position of the parameter among all; trust_ratio: written by clr_norm or clr_share
  const DeviceChunk* chunks;
  uint64_t slot_count, chunk_count;
  // For clr_norm: scratch for a part of each chunk's gradient, then for a part of each chunk's parameter (if trust
  // ratios are wanted); and for each slot, the number of chunks of the slots before it.
  NormPart* parts;
  const uint64_t* first_chunks;
  // Where processes share a model: what clr_norm has found, to be added up over them and then to be read by clr_share;
  // null for none. The places of each slot's numbers, and of the sums.
  double* numbers = nullptr;
  const SharedPlaces* places = nullptr;
  const uint32_t* sums = nullptr;
  uint32_t number_count = 0, sum_count = 0;
};

// How this step treats gradients. A captured launch freezes these values, but not the numbers that they point to.
struct DeviceStep {
  GradientValues gradients;  // scale: used if grad_scale is null
  // One number each, in a GradScaler's memory, or null. `found_inf` is read. `report_inf` is written: 1 or 0.
  const float* grad_scale;
  const float* found_inf;
  float* report_inf;
  double max_norm;       // if not 0, clip_coefficient is wanted
  bool trusts;           // the trust ratios of slots are wanted
  bool measured;         // clr_norm ran before
  bool skips_nonfinite;  // an infinity or a NaN that it saw skips the update
  bool skipped;          // the host knows that the update is to be skipped
  bool advances_on_skip;
};

}  // namespace clr
