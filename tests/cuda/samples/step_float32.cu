// The kernels of an update, for float32 alone: faults are planted in what is compiled fast.
#include "cuda/step.inl"

namespace clr {
namespace {

struct Float32 {
  __device__ static __forceinline__ void run(const GradientValues& gradients, const GroupValues& group,
                                             const Slot& slot, Span span) {
    update_element<float>({gradients, group, slot, span});
  }
};

}  // namespace

extern "C" __global__ __launch_bounds__(kPlainThreads, kPlainBlocks) void clr_step_float32(DeviceState* state,
                                                                                           DeviceWork work,
                                                                                           DeviceStep step) {
  run_step(*state, work, step, Plain<float>{});
}

extern "C" __global__ __launch_bounds__(kStepThreads, kStepBlocks) void clr_step(DeviceState* state, DeviceWork work,
                                                                                 DeviceStep step) {
  run_step(*state, work, step, Any<Float32>{gradients_of(*state, step), step.trusts});
}

}  // namespace clr
