// What a device knows of an optimizer: tables in its memory, filled by the host, advanced by the kernels.
#pragma once

#include "core/piece.h"
#include "core/slot.h"

namespace clr {

// A parameter group: where it stands in its schedule, and the numbers of its next update.
struct DeviceGroup {
  GroupValues values;   // of the next update
  const Piece* pieces;  // its schedule
  uint64_t piece_count;
  const double* scales;  // Mode::custom: the scales by step; else null
  uint64_t step;         // number of the next update along the schedule
  double momentum;       // where the schedule has none
  double ema_decay;      // if values.averages
  bool ema_warmup;
  bool by_hand;  // lr or momentum of the next update are set by hand: it does not follow the schedule
  uint64_t n_averaged, n_updates;
  uint64_t seed;
};

// Part of a tensor: elements from `part` * kDeviceChunk on.
struct DeviceChunk {
  uint32_t slot, part;
};
constexpr int64_t kDeviceChunk = 16384;

struct DeviceTables {
  Slot* slots;  // random_key: the position of the parameter among all
  DeviceGroup* groups;
  const DeviceChunk* chunks;
  uint64_t slot_count, group_count, chunk_count;
  GradientValues gradients;
  bool advance_on_skip;
  uint64_t applied, skipped;  // updates since the tables were filled
  uint32_t ticket;            // blocks of the running launch that are done
};

}  // namespace clr
