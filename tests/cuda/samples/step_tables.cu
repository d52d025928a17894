// Fills the tables of the step kernel, so that tests need not know how structs are laid out.
#include "core/average.h"
#include "cuda/tables.h"

namespace clr {

struct AskedSlot {
  uint64_t parameter, gradient, buffer, average, companion;
  int64_t size;
  uint64_t position;
  double trust_ratio;
  uint32_t group;
  int32_t dtype, buffer_dtype, storage;
};

struct AskedGroup {
  uint64_t pieces;
  double lr, momentum, dampening, weight_decay, ema_decay;
  uint64_t seed;
  int32_t nesterov, maximize, averages, ema_warmup;
};

extern "C" __global__ void sizes(uint64_t* to) {
  to[0] = sizeof(Slot);
  to[1] = sizeof(DeviceGroup);
  to[2] = sizeof(DeviceTables);
}

extern "C" __global__ void fill_slots(const AskedSlot* asked, uint64_t count, Slot* slots) {
  if (threadIdx.x >= count) return;
  const AskedSlot& a = asked[threadIdx.x];
  Slot slot{};
  slot.parameter = reinterpret_cast<void*>(a.parameter);
  slot.gradient = reinterpret_cast<void*>(a.gradient);
  slot.buffer = reinterpret_cast<void*>(a.buffer);
  slot.average = reinterpret_cast<void*>(a.average);
  slot.companion = reinterpret_cast<void*>(a.companion);
  slot.size = a.size;
  slot.group = a.group;
  slot.dtype = static_cast<DType>(a.dtype);
  slot.buffer_dtype = static_cast<DType>(a.buffer_dtype);
  slot.storage = static_cast<Storage>(a.storage);
  slot.first = slot.first_average = true;
  slot.trust_ratio = a.trust_ratio;
  slot.random_key = a.position;
  slots[threadIdx.x] = slot;
}

extern "C" __global__ void fill_groups(const AskedGroup* asked, uint64_t count, DeviceGroup* groups) {
  if (threadIdx.x >= count) return;
  const AskedGroup& a = asked[threadIdx.x];
  DeviceGroup group{};
  group.values.lr = a.lr;
  group.values.momentum = a.momentum;
  group.values.dampening = a.dampening;
  group.values.weight_decay = a.weight_decay;
  group.values.nesterov = a.nesterov;
  group.values.maximize = a.maximize;
  group.values.averages = a.averages;
  group.values.average_weight = ema_weight(a.ema_decay, a.ema_warmup, 0);
  group.pieces = reinterpret_cast<const Piece*>(a.pieces);
  group.piece_count = 1;
  group.ema_decay = a.ema_decay;
  group.ema_warmup = a.ema_warmup;
  group.seed = a.seed;
  groups[threadIdx.x] = group;
}

extern "C" __global__ void fill_tables(DeviceTables* to, Slot* slots, uint64_t slot_count, DeviceGroup* groups,
                                       uint64_t group_count, const DeviceChunk* chunks, uint64_t chunk_count) {
  DeviceTables tables{};
  tables.slots = slots;
  tables.groups = groups;
  tables.chunks = chunks;
  tables.slot_count = slot_count;
  tables.group_count = group_count;
  tables.chunk_count = chunk_count;
  *to = tables;
}

extern "C" __global__ void set_rules(DeviceTables* to, double clip_coefficient, double limit, int advance_on_skip) {
  to->gradients = {1.0, clip_coefficient, limit};
  to->advance_on_skip = advance_on_skip;
}

extern "C" __global__ void counts(const DeviceTables* tables, uint64_t group, uint64_t* to, double* values) {
  const DeviceGroup& g = tables->groups[group];
  to[0] = tables->applied;
  to[1] = tables->skipped;
  to[2] = tables->ticket;
  to[3] = g.step;
  to[4] = g.n_averaged;
  to[5] = g.n_updates;
  values[0] = g.values.lr;
  values[1] = g.values.momentum;
}

}  // namespace clr
