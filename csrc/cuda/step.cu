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

}  // namespace clr
