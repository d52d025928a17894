// One update of all tensors of a device in one launch, for any way to update a chunk. Block 0 forms the numbers of the
// next update while the others work; the last block to finish puts them in force.
#pragma once

#include "core/random.h"
#include "cuda/progress_turns.h"
#include "cuda/table_values.h"
#include "cuda/update_cuda.h"
#include "cuda/work_units.h"

namespace clr {
namespace {

// Marks the buffers and averages that now hold numbers. Each position belongs to one slot at most.
__device__ __forceinline__ void mark_state(const DeviceState& state, const DeviceWork& work, bool ends) {
  for (uint64_t i = threadIdx.x; i < work.slot_count; i += blockDim.x) {
    const Slot& slot = work.slots[i];
    const bool empty = slot.size == 0;  // the arrays of an empty slot may be null
    if ((slot.gradient != nullptr && slot.buffer != nullptr) || empty) state.buffer_holds[slot.random_key] = true;
    const bool averages = averages_next(state.settings[slot.group], ends);
    if (averages && (slot.average != nullptr || empty)) state.average_holds[slot.random_key] = true;
  }
}

__device__ __forceinline__ void count(DeviceReport& counts, Outcome outcome) {
  switch (outcome) {
    case Outcome::applied:
      ++counts.applied;
      return;
    case Outcome::skipped:
      ++counts.skipped;
      return;
    case Outcome::refused:
      ++counts.refused;
      return;
    case Outcome::stale:
      ++counts.stale;
      return;
    case Outcome::unusable:
      ++counts.unusable;
      return;
  }
}

// Marks what clr_release has filled since the last update.
__device__ __forceinline__ void mark_released(const DeviceState& state) {
  for (uint64_t i = threadIdx.x; i < state.parameter_count; i += blockDim.x) {
    const uint8_t filled = state.released[i];
    if ((filled & kFilledBuffer) != 0) state.buffer_holds[i] = true;
    if ((filled & kFilledAverage) != 0) state.average_holds[i] = true;
    state.released[i] = 0;
  }
}

// The last block does this after all others.
__device__ __forceinline__ void finish(DeviceState& state, const DeviceWork& work, const DeviceStep& step) {
  const Outcome outcome = outcome_of(state, step);
  const bool ends = ends_cycle(state);
  const bool marks = outcome == Outcome::applied && (ends || state.marked != work.number);
  __syncthreads();  // all have read what the first thread changes
  if (marks) mark_state(state, work, ends);
  if (step.ends_releases && outcome == Outcome::applied) mark_released(state);
  if (threadIdx.x != 0) return;
  if (marks) state.marked = work.number;
  const bool skipped = outcome == Outcome::skipped;
  count(state.counts, outcome);
  if (skipped || outcome == Outcome::applied) {
    state.counts.last_skipped = skipped;
    state.turn ^= 1;
    state.unusable = state.next_unusable;
  }
  *state.report = state.counts;
  if (step.report_inf != nullptr) *step.report_inf = skipped ? 1.0f : 0.0f;
  state.ticket = 0;
  state.next_unit = 0;
}

// Returns what happens to the gradients of this update.
__device__ __forceinline__ GradientValues gradients_of(const DeviceState& state, const DeviceStep& step) {
  GradientValues gradients = step.gradients;
  gradients.scale = scale_of(step);
  if (step.measured) gradients.clip_coefficient = state.clip_coefficient;
  return gradients;
}

// A plain update of elements of one dtype.
template <class Element>
struct Plain {
  __device__ __forceinline__ void operator()(const DeviceState& state, const DeviceWork& work, uint32_t number,
                                             Span span) const {
    const Slot& slot = work.slots[number];
    const GroupProgress& progress = progress_in_force(state)[slot.group];
    TwoAtOnce<Element> update(values_of(state.settings[slot.group], progress, false), slot);  // it has no average
    update.c.first = !state.buffer_holds[slot.random_key];
    // Elements are counted from the start of the chunk: fewer registers hold their numbers.
    update.parameter += span.begin;
    update.gradient += span.begin;
    if (update.c.has_buffer) update.buffer += span.begin;
    for_lanes<Element>(update, {0, span.end - span.begin, span.crew});
  }
};

// Any update of elements of some dtypes: UpdateSlot::run() is update_slot(), or a part of it.
template <class UpdateSlot>
struct Any {
  GradientValues gradients;
  bool trusts, ends_cycle;

  __device__ __forceinline__ void operator()(const DeviceState& state, const DeviceWork& work, uint32_t number,
                                             Span span) const {
    Slot slot = work.slots[number];
    if (trusts && slot.trusted) {
      const GroupSettings& settings = state.settings[slot.group];
      const SlotLengths of = work.lengths[number];
      const double gradient = gradients.scale * gradients.clip_coefficient * of.gradient;
      slot.trust_ratio =
          trust_ratio(settings.trust_coefficient, settings.trust_eps, settings.weight_decay, of.parameter, gradient);
    }
    update(state, slot, span);
  }

  // `slot`: random_key is the position of its parameter.
  __device__ __forceinline__ void update(const DeviceState& state, Slot slot, Span span) const {
    const GroupSettings& settings = state.settings[slot.group];
    const GroupProgress& progress = progress_in_force(state)[slot.group];
    slot.first = !state.buffer_holds[slot.random_key];
    slot.first_average = !state.average_holds[slot.random_key] || progress.n_averaged == 0;
    slot.random_key = random_key(settings.seed, progress.n_updates, slot.random_key);
    const GroupValues values = device_values(settings, progress, ends_cycle);
    if (!values.averages) slot.average = nullptr;
    UpdateSlot::run(gradients, values, slot, span);
  }
};

// Updates a unit: one chunk with all threads of the block, or a small chunk with each of its warps.
// `update(state, work, number, span)` updates a part of a slot.
template <class Update>
struct UpdateUnit {
  const DeviceState& state;
  const DeviceWork& work;
  Update update;

  __device__ __forceinline__ void operator()(uint32_t unit) const {
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
    const bool shared = unit < work.shared_count;
    const uint32_t first_alone = work.shared_count + (unit - work.shared_count) * (threads / kWarp);
    const uint32_t number = shared ? unit : first_alone + thread / kWarp;
    if (number >= work.chunk_count) return;
    const DeviceChunk chunk = work.by_size[number];
    const Crew crew = shared ? Crew{thread, threads} : Crew{thread % kWarp, kWarp};
    update(state, work, chunk.slot, Span{begin_of(chunk), end_of(chunk, work.slots[chunk.slot]), crew});
  }
};

// Updates everything in `work`, or skips all of it.
template <class Update>
__device__ __forceinline__ void run_step(DeviceState& state, const DeviceWork& work, const DeviceStep& step,
                                         Update update) {
  if (blockIdx.x == 0) form_next(state, outcome_of(state, step), step.advances_on_skip);
  if (outcome_of(state, step) == Outcome::applied) {  // kept through the call, it would cost registers
    for_units(state, update_units(work, blockDim.x / kWarp), UpdateUnit<Update>{state, work, update});
  }
  if (is_last_block(&state.ticket)) finish(state, work, step);
}

}  // namespace
}  // namespace clr
