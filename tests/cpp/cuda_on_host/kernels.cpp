// The kernels, as they are, for the host.
#include "cuda_on_host/kernels.h"

#include <cstring>

#include "cuda_on_host/launch.h"

// What nvcc has of itself. Shared memory is static: blocks run one after another.
#define __CUDACC__
#define __CUDA_ARCH__ 750
#define __host__
#define __device__
#define __global__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __shared__ static
#define threadIdx cuda_on_host::thread
#define blockIdx cuda_on_host::block
#define blockDim cuda_on_host::block_size
#define gridDim cuda_on_host::grid

namespace {

inline void __syncthreads() { cuda_on_host::running->wait_for_all(); }
inline void __threadfence() {}  // barriers and atomics of the host order all memory; whether it is missing is not seen
inline std::uint32_t atomicAdd(std::uint32_t* at, std::uint32_t more) {
  return __atomic_fetch_add(at, more, __ATOMIC_ACQ_REL);
}
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }

inline double __shfl_down_sync(unsigned mask, double value, int by, int width) {
  cuda_on_host::Block& block = *cuda_on_host::running;
  const unsigned here = threadIdx.x, width_here = static_cast<unsigned>(width);
  const unsigned there = here + static_cast<unsigned>(by);
  std::memcpy(&block.place(here), &value, sizeof value);
  block.wait_for_lanes(mask);
  if (here / width_here == there / width_here) std::memcpy(&value, &block.place(there), sizeof value);
  block.wait_for_lanes(mask);
  return value;
}

inline int __all_sync(unsigned mask, bool value) {
  cuda_on_host::Block& block = *cuda_on_host::running;
  const unsigned first = threadIdx.x / cuda_on_host::Block::kWarp * cuda_on_host::Block::kWarp;
  block.place(threadIdx.x) = value;
  block.wait_for_lanes(mask);
  for (unsigned lane = 0; lane < cuda_on_host::Block::kWarp; ++lane) {
    if ((mask >> lane & 1u) != 0) value = value && block.place(first + lane) != 0;
  }
  block.wait_for_lanes(mask);
  return value ? 1 : 0;
}

}  // namespace

#include "cuda/kernels.cu"
