// The data of an optimizer on a device: tables in its memory, and the arguments of each launch.
#pragma once

#include "core/cycles.h"
#include "core/norm.h"
#include "core/progress.h"
#include "core/shared_numbers.h"

namespace clr {

// The progress of the device, which the host may read at any time without waiting.
struct DeviceReport {
  uint64_t applied, skipped;  // updates of this optimizer on this device
  uint64_t refused;           // launches that changed nothing because another process refused the step
  uint64_t stale;             // replays that changed nothing because the groups are others than when they were captured
  uint64_t unusable;          // launches that changed nothing because a schedule had no value that they could use
  bool last_skipped;          // True if the last update was skipped
};

// The data that stay on the device from step to step.
struct DeviceState {
  const GroupSettings* settings;  // the host writes them
  GroupProgress* progress;        // two copies of all groups' (cuda/progress_turns.h); the host sets both
  uint64_t group_count;
  uint64_t generation;  // of the groups: another one whenever they, or their order, change
  Cycles cycles;        // of the first group's schedule; none if no group averages at their ends
  // True for each position if the buffer, or the average, of the parameter there holds numbers.
  bool* buffer_holds;
  bool* average_holds;
  // For each position, what the release of the parameter there has filled in this step: kFilledBuffer, kFilledAverage.
  uint8_t* released;
  uint64_t parameter_count;
  DeviceReport* report;
  // The device writes the members from here on.
  DeviceReport counts;  // kept here, and copied to report
  // The results of clr_norm, or of clr_share, for clr_step.
  double norm, clip_coefficient;
  bool finite;
  bool refused;  // by another process
  // Not 0 if a schedule has no value that an update can use: at the progress in force, and at the other.
  uint32_t unusable, next_unusable;
  uint32_t turn;       // the copy of the progress that is in force: 0 or 1
  uint32_t ticket;     // number of blocks of the running launch that are done
  uint32_t next_unit;  // number of units of work that its blocks have drawn
  uint32_t marked;     // the number of the work whose buffers and averages are all marked; 0 for none
};

// A part of a tensor: elements from `part` * kDeviceChunk on. It is as large as the chunks in which squares are summed.
struct DeviceChunk {
  uint32_t slot, part;
  uint32_t number;  // among the chunks of all slots: those of a slot follow each other, in the order of slots
};
constexpr int64_t kDeviceChunk = kNormChunk;

constexpr uint8_t kFilledBuffer = 1, kFilledAverage = 2;

constexpr int kWarp = 32;

// The threads of a block, and the blocks that a multiprocessor holds at once: compilers keep to the registers that
// this leaves a thread.
constexpr int kNormThreads = 512, kNormBlocks = 2;
constexpr int kPlainThreads = 512, kPlainBlocks = 2;
constexpr int kStepThreads = 256, kStepBlocks = 3;
constexpr int kReleaseBlocks = 2;  // of as many threads

// A chunk of fewer elements is updated by one warp.
constexpr int64_t kSharedChunk = 2048;

// The lengths of a slot's parameter and gradient, for LARS.
struct SlotLengths {
  double parameter, gradient;
};

// The work of a launch.
struct DeviceWork {
  const Slot* slots;           // random_key: the position of the parameter among all
  const DeviceChunk* chunks;   // by their numbers
  const DeviceChunk* by_size;  // the same, the large ones first
  uint32_t slot_count, chunk_count;
  uint32_t shared_count;  // the chunks of kSharedChunk elements and more
  uint32_t number;        // of this work among all of the plan, from 1 on
  // For clr_norm: scratch for a part of each chunk's gradient, then for a part of each chunk's parameter (if lengths
  // are wanted); and for each slot, the number of chunks of the slots before it, and how many of its own are measured.
  NormPart* parts;
  const uint64_t* first_chunks;
  uint32_t* ended;
  SlotLengths* lengths;  // of trusted slots that have elements, from clr_norm or clr_share
  // Where processes share a model: what clr_norm has found, to be added up over them and then to be read by clr_share;
  // null for none. The places of each slot's numbers, and of the sums.
  double* numbers = nullptr;
  const SharedPlaces* places = nullptr;
  const uint32_t* sums = nullptr;
  uint32_t number_count = 0, sum_count = 0;
};

// Returns the number of units of an update by blocks of so many warps (cuda/work_units.h).
CLR_INLINE uint32_t update_units(const DeviceWork& work, uint32_t warps) {
  return work.shared_count + (work.chunk_count - work.shared_count + warps - 1) / warps;
}

// In clr_norm a unit is some chunks, each for a crew: half a warp sums up each run.
constexpr uint32_t kCrewThreads = kNormChunk / kNormRun * kNormSums;
constexpr uint32_t kCrews = kNormThreads / kCrewThreads;
CLR_INLINE uint32_t norm_units(const DeviceWork& work) { return (work.chunk_count + kCrews - 1) / kCrews; }

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
  bool has_rates;           // some group's rate lies on the device
  bool ends_releases;       // parameters have been updated by clr_release before this update of the others
  uint64_t generation = 0;  // of the groups that the launch is for
};

}  // namespace clr
