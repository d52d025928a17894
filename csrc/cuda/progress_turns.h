// The progress of groups in two copies: an update reads the one that is in force while one block forms the other, which
// is in force from the end of the launch on.
#pragma once

#include "core/progress.h"
#include "cuda/tables.h"

namespace clr {
namespace {

// What a launch does. All its blocks find the same.
enum class Outcome : uint8_t {
  applied,
  skipped,
  refused,  // by another process: nothing changes, and nothing is counted but this
  stale,    // a replay for other groups: the same
  unusable  // a schedule has no value that an update could use: the same
};

// True if this launch was captured for other groups, or for another order of them.
__device__ __forceinline__ bool is_stale(const DeviceState& state, const DeviceStep& step) {
  return step.generation != state.generation;
}

__device__ __forceinline__ Outcome outcome_of(const DeviceState& state, const DeviceStep& step) {
  if (is_stale(state, step)) return Outcome::stale;
  if (state.unusable != 0) return Outcome::unusable;
  if (step.measured && state.refused) return Outcome::refused;
  const bool skipped = step.skipped || (step.found_inf != nullptr && *step.found_inf != 0.0f)  // NaN too
                       || (step.skips_nonfinite && !state.finite);
  return skipped ? Outcome::skipped : Outcome::applied;
}

__device__ __forceinline__ GroupProgress* progress_in_force(const DeviceState& state) {
  return state.progress + (state.turn == 0 ? 0 : state.group_count);
}

// Returns the schedule's values at the group's position. They are not valid behind the end of a scale
// function's table.
__device__ __forceinline__ Value scheduled_value(const GroupSettings& settings, const GroupProgress& progress) {
  const Piece& piece = piece_at(settings.pieces, settings.piece_count, progress.step);
  const uint64_t own = step_in(piece, progress.step);
  const bool is_custom = piece.policy.mode == Mode::custom;
  return evaluate(piece.policy, own, is_custom ? scale_in(piece.table, scale_argument(piece.policy, own)) : 1.0);
}

// Returns the numbers of this update, with a rate that only the device knows.
__device__ __forceinline__ GroupValues device_values(const GroupSettings& settings, const GroupProgress& progress,
                                                     bool ends_cycle) {
  GroupValues values = values_of(settings, progress, ends_cycle);
  if (settings.rate == nullptr) return values;
  values.lr = settings.rate_is_double ? *static_cast<const double*>(settings.rate)
                                      : static_cast<double>(*static_cast<const float*>(settings.rate));
  return values;
}

// True if this update is the last of a cycle of the first group, and some group averages there.
__device__ __noinline__ bool ends_cycle(const DeviceState& state) {
  if (state.cycles.count == 0) return false;
  const GroupProgress& first = progress_in_force(state)[0];
  return !is_overridden(state.settings[0], first) && cycle_position(state.cycles, first.step + 1).at_end;
}

// Forms the progress after this update. All threads of one block do this together.
__device__ __noinline__ void form_next(DeviceState& state, Outcome outcome, bool advances_on_skip) {
  if (outcome != Outcome::applied && outcome != Outcome::skipped) return;
  const GroupProgress* const from = progress_in_force(state);
  GroupProgress* const to = state.progress + (state.turn == 0 ? state.group_count : 0);
  const bool ends = ends_cycle(state);
  if (threadIdx.x == 0) state.next_unusable = 0;
  __syncthreads();
  for (uint64_t i = threadIdx.x; i < state.group_count; i += blockDim.x) {
    const GroupSettings& settings = state.settings[i];
    GroupProgress& next = to[i];
    next = from[i];
    outcome == Outcome::skipped ? advance_skipped(settings, next, advances_on_skip) : advance(settings, next, ends);
    const Value value = scheduled_value(settings, next);
    prepare_next(settings, next, value);
    if (!settings.constant && !is_valid(settings.pieces, settings.piece_count, next.step, value)) {
      state.next_unusable = 1;
    }
  }
}

}  // namespace
}  // namespace clr
