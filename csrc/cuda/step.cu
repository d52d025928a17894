// The kernels of an update: one for plain updates of each dtype, and one for all others.
#include "cuda/step.inl"

namespace clr {
namespace {

struct AllDtypes {
  __device__ static __forceinline__ void run(const GradientValues& gradients, const GroupValues& group,
                                             const Slot& slot, Span span) {
    update_slot(gradients, group, slot, span);
  }
};

}  // namespace

extern "C" __global__ __launch_bounds__(kPlainThreads, kPlainBlocks) void clr_step_float32(DeviceState* state,
                                                                                           DeviceWork work,
                                                                                           DeviceStep step) {
  run_step(*state, work, step, Plain<float>{});
}

extern "C" __global__ __launch_bounds__(kPlainThreads, kPlainBlocks) void clr_step_float64(DeviceState* state,
                                                                                           DeviceWork work,
                                                                                           DeviceStep step) {
  run_step(*state, work, step, Plain<double>{});
}

extern "C" __global__ __launch_bounds__(kPlainThreads, kPlainBlocks) void clr_step_bfloat16(DeviceState* state,
                                                                                            DeviceWork work,
                                                                                            DeviceStep step) {
  run_step(*state, work, step, Plain<Bfloat16>{});
}

extern "C" __global__ __launch_bounds__(kPlainThreads, kPlainBlocks) void clr_step_float16(DeviceState* state,
                                                                                           DeviceWork work,
                                                                                           DeviceStep step) {
  run_step(*state, work, step, Plain<Float16>{});
}

extern "C" __global__ __launch_bounds__(kStepThreads, kStepBlocks) void clr_step(DeviceState* state, DeviceWork work,
                                                                                 DeviceStep step) {
  run_step(*state, work, step, Any<AllDtypes>{gradients_of(*state, step), step.trusts, ends_cycle(*state)});
}

// Updates one parameter in front of the update of the others, which counts for both. Nothing of the state changes that
// other blocks, or other parameters, read.
extern "C" __global__ __launch_bounds__(kStepThreads, kReleaseBlocks) void clr_release(const DeviceState* state,
                                                                                       Slot slot, DeviceStep step) {
  if (outcome_of(*state, step) != Outcome::applied) return;
  const bool ends = ends_cycle(*state);
  const Any<AllDtypes> any{step.gradients, false, ends};
  const Crew crew{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x)};
  const auto parts = static_cast<uint32_t>((slot.size + kDeviceChunk - 1) / kDeviceChunk);
  for (uint32_t part = blockIdx.x; part < parts; part += gridDim.x) {
    const DeviceChunk chunk{0, part, part};
    any.update(*state, slot, Span{begin_of(chunk), end_of(chunk, slot), crew});
  }
  if (blockIdx.x != 0 || threadIdx.x != 0) return;
  const bool empty = slot.size == 0;  // the arrays of an empty slot may be null
  const bool averages = averages_next(state->settings[slot.group], ends) && (slot.average != nullptr || empty);
  state->released[slot.random_key] =
      static_cast<uint8_t>((slot.buffer != nullptr || empty ? kFilledBuffer : 0) | (averages ? kFilledAverage : 0));
}

}  // namespace clr
