// Fills the tables of the step kernel, so that tests need not know how structs are laid out.
#include "cuda/tables.h"

namespace clr {

struct AskedSlot {
  uint64_t parameter, gradient, buffer, average, companion;
  int64_t size;
  uint64_t position;
  double trust_ratio;
  uint32_t group;
  int32_t dtype, buffer_dtype, gradient_dtype, storage, trusted;
};

struct AskedGroup {
  uint64_t pieces;
  double lr, momentum, dampening, weight_decay, ema_decay, trust_coefficient, trust_eps, lr_scale;
  uint64_t seed;
  int32_t nesterov, maximize, averages, ema_warmup, counts_updates;
};

extern "C" __global__ void sizes(uint64_t* to) {
  to[0] = sizeof(Slot);
  to[1] = sizeof(GroupSettings);
  to[2] = sizeof(GroupProgress);
  to[3] = sizeof(DeviceState);
  to[4] = sizeof(DeviceWork);
  to[5] = sizeof(DeviceStep);
  to[6] = sizeof(DeviceReport);
  to[7] = sizeof(NormPart);
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
  slot.gradient_dtype = static_cast<DType>(a.gradient_dtype);
  slot.storage = static_cast<Storage>(a.storage);
  slot.trusted = a.trusted;
  slot.trust_ratio = a.trust_ratio;
  slot.random_key = a.position;
  slots[threadIdx.x] = slot;
}

extern "C" __global__ void fill_groups(const AskedGroup* asked, uint64_t count, GroupSettings* settings,
                                       GroupProgress* progress) {
  if (threadIdx.x >= count) return;
  const AskedGroup& a = asked[threadIdx.x];
  GroupSettings said{};
  said.pieces = reinterpret_cast<const Piece*>(a.pieces);
  said.piece_count = 1;
  said.momentum = a.momentum;
  said.dampening = a.dampening;
  said.weight_decay = a.weight_decay;
  said.ema_decay = a.ema_decay;
  said.trust_coefficient = a.trust_coefficient;
  said.trust_eps = a.trust_eps;
  said.lr_scale = a.lr_scale;
  said.seed = a.seed;
  said.nesterov = a.nesterov;
  said.maximize = a.maximize;
  said.averaging = a.averages ? Averaging::exponential : Averaging::none;
  said.ema_warmup = a.ema_warmup;
  said.counts_updates = a.counts_updates;
  settings[threadIdx.x] = said;
  GroupProgress begun{};
  begun.lr = a.lr;
  begun.momentum = a.momentum;
  begun.average_weight = ema_weight(a.ema_decay, a.ema_warmup, 0);
  progress[threadIdx.x] = progress[count + threadIdx.x] = begun;
}

extern "C" __global__ void override_next(GroupSettings* settings, uint64_t group, double lr, double momentum) {
  settings[group].lr_override = lr;
  settings[group].momentum_override = momentum;
  settings[group].override_number += 1;
}

extern "C" __global__ void fill_state(DeviceState* to, const GroupSettings* settings, GroupProgress* progress,
                                      uint64_t group_count, bool* buffer_holds, bool* average_holds,
                                      DeviceReport* report) {
  DeviceState state{};
  state.settings = settings;
  state.progress = progress;
  state.group_count = group_count;
  state.buffer_holds = buffer_holds;
  state.average_holds = average_holds;
  state.report = report;
  *to = state;
}

extern "C" __global__ void fill_work(DeviceWork* to, Slot* slots, uint32_t slot_count, const DeviceChunk* chunks,
                                     const DeviceChunk* by_size, uint32_t chunk_count, uint32_t shared_count,
                                     uint32_t number, NormPart* parts, const uint64_t* first_chunks, uint32_t* ended,
                                     SlotLengths* lengths) {
  *to = {slots, chunks, by_size, slot_count, chunk_count, shared_count, number, parts, first_chunks, ended, lengths};
}

struct AskedStep {
  double scale, limit, max_norm;
  uint64_t grad_scale, found_inf, report_inf;
  int32_t trusts, measured, skips_nonfinite, skipped, advances_on_skip;
};

extern "C" __global__ void fill_step(DeviceStep* to, const AskedStep* asked) {
  DeviceStep step{};
  step.gradients = {asked->scale, 1.0, asked->limit};
  step.grad_scale = reinterpret_cast<const float*>(asked->grad_scale);
  step.found_inf = reinterpret_cast<const float*>(asked->found_inf);
  step.report_inf = reinterpret_cast<float*>(asked->report_inf);
  step.max_norm = asked->max_norm;
  step.trusts = asked->trusts;
  step.measured = asked->measured;
  step.skips_nonfinite = asked->skips_nonfinite;
  step.skipped = asked->skipped;
  step.advances_on_skip = asked->advances_on_skip;
  *to = step;
}

// What clr_norm would have found out.
extern "C" __global__ void set_measured(DeviceState* to, double clip_coefficient, int finite) {
  to->clip_coefficient = clip_coefficient;
  to->finite = finite;
}

// What clr_norm has found out.
extern "C" __global__ void found(const DeviceState* state, const Slot* slots, const SlotLengths* lengths,
                                 uint64_t count, double scale, double* to, double* trust_ratios) {
  to[0] = state->norm;
  to[1] = state->clip_coefficient;
  to[2] = state->finite;
  to[3] = state->ticket + state->next_unit;
  for (uint64_t i = 0; i < count; ++i) {
    const GroupSettings& settings = state->settings[slots[i].group];
    trust_ratios[i] = !slots[i].trusted || slots[i].size == 0
                          ? 1.0
                          : trust_ratio(settings.trust_coefficient, settings.trust_eps, settings.weight_decay,
                                        lengths[i].parameter, scale * state->clip_coefficient * lengths[i].gradient);
  }
}

extern "C" __global__ void counts(const DeviceState* state, uint64_t group, uint64_t* to, double* values) {
  const GroupProgress& g = state->progress[state->turn * state->group_count + group];
  to[0] = state->report->applied;
  to[1] = state->report->skipped;
  to[2] = state->ticket + state->next_unit;
  to[3] = g.step;
  to[4] = g.n_averaged;
  to[5] = g.n_updates;
  to[6] = g.skipped;
  values[0] = g.lr;
  values[1] = g.momentum;
}

}  // namespace clr
