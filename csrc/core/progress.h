// The state machine of a parameter group: its settings, its progress, and how an update changes the progress. It stands
// here once, for processors and for GPUs.
#pragma once

#include "core/average.h"
#include "core/piece.h"
#include "core/slot.h"

namespace clr {

// When the weights go into their average: in every update, or at the ends of the first group's cycles.
enum class Averaging : uint8_t { none, exponential, at_cycle_ends };

// A number that lies on a device, or nothing.
struct RateOnDevice {
  const void* at;
  bool is_double;  // else a float
};

// An override_number that is never carried out: every update takes the overrides.
constexpr uint64_t kStandingOverride = UINT64_MAX;

// The settings of a parameter group, and what its owner has set by hand. An update only reads them.
struct GroupSettings {
  // Every update on the host reads the first members: a step over many groups waits for memory.
  uint64_t override_number;  // other than the last one that was carried out: the next update takes the overrides
  double momentum;           // where the schedule has none
  double lr_scale = 1.0;     // the factor of the schedule's rate
  double dampening, weight_decay;
  double trust_coefficient, trust_eps;
  bool nesterov, maximize;
  Averaging averaging;
  bool ema_warmup;
  bool counts_updates;  // True if random numbers depend on how many updates there were
  bool constant;        // True if every update takes the overrides, and counts all the same
  bool rate_is_double;  // RateOnDevice::is_double
  uint8_t unused[1];    // in the place of padding: settings are compared byte by byte
  const void* rate;     // RateOnDevice::at: not null in place of lr_override. Only the device reads it
  double lr_override, momentum_override;  // of the update that override_number asks for; a momentum of NaN is none
  const Piece* pieces;                    // its schedule
  uint64_t piece_count;
  double ema_decay;  // Averaging::exponential
  uint64_t seed;
};
static_assert(sizeof(GroupSettings) == 14 * sizeof(double) + 8, "GroupSettings must have no padding");

// Where a parameter group stands.
struct GroupProgress {
  double lr, momentum;     // the schedule's, of the next update; lr before it is scaled
  uint64_t step;           // the next update's number along the schedule
  uint64_t last_override;  // the override that was carried out last
  double average_weight;   // of the next update
  uint64_t n_averaged, n_updates, skipped;
};

// True if the next update takes the overrides. It does not follow the schedule.
CLR_INLINE bool is_overridden(const GroupSettings& settings, const GroupProgress& progress) {
  return settings.override_number != progress.last_override;
}

// True if the next update moves the average. `ends_cycle`: True if it is the last of a cycle of the first group.
CLR_INLINE bool averages_next(const GroupSettings& settings, bool ends_cycle) {
  return settings.averaging == Averaging::exponential || (settings.averaging == Averaging::at_cycle_ends && ends_cycle);
}

// Returns the schedule's rate as the group has it.
CLR_INLINE double scaled_lr(const GroupSettings& settings, double lr) { return settings.lr_scale * lr; }

// Returns lr and momentum of the next update.
CLR_INLINE Value next_value(const GroupSettings& settings, const GroupProgress& progress) {
  const bool takes_overrides = settings.constant || is_overridden(settings, progress);
  const double momentum = takes_overrides ? settings.momentum_override : progress.momentum;
  return {takes_overrides ? settings.lr_override : scaled_lr(settings, progress.lr),
          momentum == momentum ? momentum : settings.momentum};
}

// Returns the numbers of the next update.
CLR_INLINE GroupValues values_of(const GroupSettings& settings, const GroupProgress& progress, bool ends_cycle) {
  const Value value = next_value(settings, progress);
  GroupValues values{};
  values.lr = value.lr;
  values.momentum = value.momentum;
  values.dampening = settings.dampening;
  values.weight_decay = settings.weight_decay;
  values.nesterov = settings.nesterov;
  values.maximize = settings.maximize;
  values.averages = averages_next(settings, ends_cycle);
  values.average_weight = progress.average_weight;
  values.trust_coefficient = settings.trust_coefficient;
  values.trust_eps = settings.trust_eps;
  return values;
}

// Counts an update that was applied. An override is used up.
CLR_INLINE void advance(const GroupSettings& settings, GroupProgress& progress, bool ends_cycle) {
  progress.n_updates += settings.counts_updates ? 1 : 0;
  progress.n_averaged += averages_next(settings, ends_cycle) ? 1 : 0;
  progress.step += is_overridden(settings, progress) ? 0 : 1;
  if (settings.override_number != kStandingOverride) progress.last_override = settings.override_number;
}

// Counts an update that was skipped. An override waits for the update that it was meant for.
CLR_INLINE void advance_skipped(const GroupSettings& settings, GroupProgress& progress, bool schedule_goes_on) {
  progress.skipped += 1;
  progress.step += schedule_goes_on && !is_overridden(settings, progress) ? 1 : 0;
}

// Forms the numbers of the next update. `scheduled`: the schedule's values at progress.step.
CLR_INLINE void prepare_next(const GroupSettings& settings, GroupProgress& progress, Value scheduled) {
  progress.lr = scheduled.lr;
  progress.momentum = scheduled.momentum;
  if (settings.averaging == Averaging::exponential) {
    progress.average_weight = ema_weight(settings.ema_decay, settings.ema_warmup, progress.n_averaged);
  }
  if (settings.averaging == Averaging::at_cycle_ends) progress.average_weight = mean_weight(progress.n_averaged);
}

}  // namespace clr
