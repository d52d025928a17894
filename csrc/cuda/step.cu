// One update of all tensors of a device in one launch. The last block to finish advances the schedules.
#include "core/average.h"
#include "core/random.h"
#include "cuda/lanes_cuda.h"
#include "cuda/tables.h"

namespace clr {
namespace {

constexpr int kThreads = 512;

// Memory is wide here and threads are many: nothing is asked for ahead.
template <class Element>
CLR_INLINE void prefetch(const Element*, int64_t, int64_t) {}

}  // namespace
}  // namespace clr

// On these lanes.
#include "cpu/update.inl"

namespace clr {
namespace {

// The threads of a block share the elements: one by one up to where 16 bytes of the parameter may be read at once, then
// 16 bytes a thread, then one by one again.
template <class Element, class Work>
CLR_INLINE void for_lanes(const Work& work, int64_t begin, int64_t end) {
#if defined(__CUDA_ARCH__)
  using Lane = typename LaneOf<Element>::type;
  using Block = Pack<Lane, 16 / static_cast<int>(sizeof(Element))>;
  const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(work.first() + begin) % 16 / sizeof(Element));
  const int64_t before = (Block::width - past) % Block::width;
  const int64_t first = before < end - begin ? begin + before : end;
  const int64_t last = first + (end - first) / Block::width * Block::width;
  if (begin + threadIdx.x < first) work.template at<Lane>(begin + threadIdx.x, WholeLanes{});
  for (int64_t i = first + static_cast<int64_t>(threadIdx.x) * Block::width; i < last; i += kThreads * Block::width) {
    work.template at<Block>(i, Vector{});
  }
  if (last + threadIdx.x < end) work.template at<Lane>(last + threadIdx.x, WholeLanes{});
#endif
}

__device__ void update_chunk(const DeviceTables& tables, const GradientValues& gradients, DeviceChunk chunk) {
  Slot slot = tables.slots[chunk.slot];
  const DeviceGroup& group = tables.groups[slot.group];
  slot.random_key = random_key(group.seed, group.n_updates, slot.random_key);
  const int64_t begin = chunk.part * kDeviceChunk;
  const int64_t end = begin + kDeviceChunk < slot.size ? begin + kDeviceChunk : slot.size;
  update_slot(gradients, group.values, slot, begin, end);
}

// Is this the last block of the launch to get here? What the others have written is visible to it then.
__device__ bool is_last_block(uint32_t* ticket) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(ticket, 1u) == gridDim.x - 1;
  __syncthreads();
  __threadfence();
  return last;
}

// The numbers of the update that the group stands before.
__device__ void prepare(DeviceGroup& group) {
  const Piece& piece = piece_at(group.pieces, group.piece_count, group.step);
  const double scale = group.scales != nullptr ? group.scales[group.step] : 1.0;
  const Value value = evaluate(piece.policy, step_in(piece, group.step), scale);
  group.values.lr = value.lr;
  group.values.momentum = value.momentum == value.momentum ? value.momentum : group.momentum;
  if (group.values.averages) {
    group.values.average_weight = ema_weight(group.ema_decay, group.ema_warmup, group.n_averaged);
  }
}

// What is set by hand waits for the update that it was set for.
__device__ void advance(DeviceGroup& group, bool skipped, bool advance_on_skip) {
  if (skipped && (!advance_on_skip || group.by_hand)) return;
  if (!skipped) {
    group.n_updates += 1;
    group.n_averaged += group.values.averages ? 1 : 0;
  }
  group.step += group.by_hand ? 0 : 1;
  group.by_hand = false;
  prepare(group);
}

__device__ void finish(DeviceTables& tables, bool skipped) {
  for (uint64_t i = threadIdx.x; i < tables.group_count; i += kThreads) {
    advance(tables.groups[i], skipped, tables.advance_on_skip);
  }
  for (uint64_t i = threadIdx.x; !skipped && i < tables.slot_count; i += kThreads) {
    Slot& slot = tables.slots[i];
    slot.first = slot.first && slot.gradient == nullptr;
    slot.first_average = false;
  }
  if (threadIdx.x != 0) return;
  ++(skipped ? tables.skipped : tables.applied);
  tables.ticket = 0;
}

}  // namespace

// `grad_scale`, `found_inf`: one number each, as a GradScaler has them; or null.
extern "C" __global__ __launch_bounds__(kThreads) void clr_step(DeviceTables* tables, const float* grad_scale,
                                                                const float* found_inf) {
  const bool skipped = found_inf != nullptr && *found_inf != 0.0f;  // NaN too
  if (!skipped) {
    GradientValues gradients = tables->gradients;
    if (grad_scale != nullptr) gradients.scale = static_cast<float>(1.0 / static_cast<double>(*grad_scale));
    for (uint64_t i = blockIdx.x; i < tables->chunk_count; i += gridDim.x) {
      update_chunk(*tables, gradients, tables->chunks[i]);
    }
  }
  if (is_last_block(&tables->ticket)) finish(*tables, skipped);
}

}  // namespace clr
