// What a device knows of an optimizer: tables in its memory, and what each launch is told.
#pragma once

#include "core/norm.h"
#include "core/piece.h"
#include "core/slot.h"

namespace clr {

// A parameter group as the host says it is. The device only reads it.
struct GroupSettings {
  const Piece* pieces;  // its schedule
  uint64_t piece_count;
  double momentum;  // where the schedule has none
  double dampening, weight_decay;
  double ema_decay;  // if it averages
  double trust_coefficient, trust_eps;
  double lr_by_hand, momentum_by_hand;  // of order number `order`
  uint64_t order;  // to use what is set by hand in one update, which does not follow the schedule; 0 for none
  uint64_t seed;
  bool nesterov, maximize;
  bool averages, ema_warmup;
  bool counts_updates;  // random numbers depend on how many there were
  bool constant;        // lr and momentum set by hand are used in every update, and all of them count
};

// Where a parameter group stands. The device writes it after each update; the host begins it, or moves it.
struct GroupProgress {
  double lr, momentum;    // of the next update, if it follows the schedule
  double average_weight;  // of the next update
  uint64_t step;          // its number along the schedule
  uint64_t n_averaged, n_updates, skipped;
  uint64_t last_order;  // the order that was carried out last
};

// What the host may read at any time without waiting for the device: how far it has come.
struct DeviceReport {
  uint64_t applied, skipped;  // updates of this optimizer on this device
  bool last_skipped;          // was the last one?
};

// What stays on the device from step to step.
struct DeviceState {
  const GroupSettings* settings;
  GroupProgress* progress;
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
