// One update of all tensors of a device in one launch. The last block to finish advances the schedules.
#include "core/progress.h"
#include "core/random.h"
#include "cuda/lanes_cuda.h"
#include "cuda/last_block.h"
#include "cuda/table_values.h"

namespace clr {
namespace {

// Does nothing: a GPU hides the latency of memory with many threads.
template <class Element>
CLR_INLINE void prefetch(const Element*, int64_t, int64_t) {}

}  // namespace
}  // namespace clr

// Uses these lanes.
#include "kernel/update.inl"

namespace clr {
namespace {

// The threads of a block share the elements: one by one up to the first address that is aligned to 16 bytes, then 16
// bytes a thread, then one by one again. One by one throughout if some array does not fit into such packs.
template <class Element, class Work>
CLR_INLINE void for_lanes(const Work& work, int64_t begin, int64_t end) {
#if defined(__CUDA_ARCH__)
  using Lane = typename LaneOf<Element>::type;
  if constexpr (Work::is_packed) {
    using Block = Pack<Lane, 16 / static_cast<int>(sizeof(Element))>;
    const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(work.first() + begin) % 16 / sizeof(Element));
    const int64_t before = (Block::width - past) % Block::width;
    const int64_t first = before < end - begin ? begin + before : end;
    const int64_t last = first + (end - first) / Block::width * Block::width;
    if (begin + threadIdx.x < first) work.template at<Lane>(begin + threadIdx.x, AllLanes{});
    for (int64_t i = first + static_cast<int64_t>(threadIdx.x) * Block::width; i < last;
         i += kDeviceThreads * Block::width) {
      work.template at<Block>(i, Vector{});
    }
    if (last + threadIdx.x < end) work.template at<Lane>(last + threadIdx.x, AllLanes{});
  } else {
    for (int64_t i = begin + threadIdx.x; i < end; i += kDeviceThreads) work.template at<Lane>(i, AllLanes{});
  }
#endif
}

__device__ void update_chunk(const DeviceState& state, const DeviceWork& work, const GradientValues& gradients,
                             DeviceChunk chunk) {
  Slot slot = work.slots[chunk.slot];
  const GroupSettings& settings = state.settings[slot.group];
  const GroupProgress& progress = state.progress[slot.group];
  slot.first = !state.buffer_holds[slot.random_key];
  slot.first_average = !state.average_holds[slot.random_key] || progress.n_averaged == 0;
  slot.random_key = random_key(settings.seed, progress.n_updates, slot.random_key);
  update_slot(gradients, values_of(settings, progress), slot, begin_of(chunk), end_of(chunk, slot));
}

// Returns the schedule's values at the group's position.
__device__ Value scheduled_value(const GroupSettings& settings, const GroupProgress& progress) {
  const Piece& piece = piece_at(settings.pieces, settings.piece_count, progress.step);
  return evaluate(piece.policy, step_in(piece, progress.step), 1.0);
}

__device__ void advance_groups(const DeviceState& state, const DeviceStep& step, bool skipped) {
  for (uint64_t i = threadIdx.x; i < state.group_count; i += kDeviceThreads) {
    const GroupSettings& settings = state.settings[i];
    GroupProgress& progress = state.progress[i];
    skipped ? advance_skipped(settings, progress, step.advances_on_skip) : advance(settings, progress);
    prepare_next(settings, progress, scheduled_value(settings, progress));
  }
}

// Marks the buffers and averages that now hold numbers. Each position belongs to one slot at most.
__device__ void mark_state(const DeviceState& state, const DeviceWork& work) {
  for (uint64_t i = threadIdx.x; i < work.slot_count; i += kDeviceThreads) {
    const Slot& slot = work.slots[i];
    const bool empty = slot.size == 0;  // the arrays of an empty slot may be null
    if ((slot.gradient != nullptr && slot.buffer != nullptr) || empty) state.buffer_holds[slot.random_key] = true;
    if (slot.average != nullptr || empty) state.average_holds[slot.random_key] = true;
  }
}

// True if another process has refused this step: then nothing changes, and nothing is counted.
__device__ bool is_refused(const DeviceState& state, const DeviceStep& step) { return step.measured && state.refused; }

// The last block does this after all others.
__device__ void finish(DeviceState& state, const DeviceWork& work, const DeviceStep& step, bool skipped) {
  const bool refused = is_refused(state, step);
  if (!refused) advance_groups(state, step, skipped);
  if (!skipped) mark_state(state, work);
  if (threadIdx.x != 0) return;
  ++(refused ? state.counts.refused : skipped ? state.counts.skipped : state.counts.applied);
  if (!refused) state.counts.last_skipped = skipped;
  *state.report = state.counts;
  if (step.report_inf != nullptr) *step.report_inf = skipped && !refused ? 1.0f : 0.0f;
  state.ticket = 0;
}

}  // namespace

// Updates everything in `work`, or skips all of it.
extern "C" __global__ __launch_bounds__(kDeviceThreads, 1) void clr_step(DeviceState* state, DeviceWork work,
                                                                         DeviceStep step) {
  const bool skipped = step.skipped || (step.found_inf != nullptr && *step.found_inf != 0.0f)  // NaN too
                       || (step.skips_nonfinite && !state->finite) || is_refused(*state, step);
  if (!skipped) {
    GradientValues gradients = step.gradients;
    gradients.scale = scale_of(step);
    if (step.measured) gradients.clip_coefficient = state->clip_coefficient;
    for (uint64_t i = blockIdx.x; i < work.chunk_count; i += gridDim.x) {
      update_chunk(*state, work, gradients, work.chunks[i]);
    }
  }
  if (is_last_block(&state->ticket)) finish(*state, work, step, skipped);
}

}  // namespace clr
