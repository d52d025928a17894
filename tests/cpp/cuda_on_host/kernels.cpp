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
#define __launch_bounds__(...)
#define __shared__ static
#define threadIdx cuda_on_host::thread
#define blockIdx cuda_on_host::block
#define gridDim cuda_on_host::grid

namespace {

inline void __syncthreads() { cuda_on_host::running->wait_for_all(); }
inline void __threadfence() {}  // barriers and atomics of the host order all memory; whether it is missing is not seen
inline std::uint32_t atomicAdd(std::uint32_t* at, std::uint32_t more) {
  return __atomic_fetch_add(at, more, __ATOMIC_ACQ_REL);
}
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }

}  // namespace

#include "cuda/kernels.cu"
