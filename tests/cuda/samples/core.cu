// The formulas of core/ as a GPU runs them, one kernel each.
#include "core/norm.h"
#include "core/piece.h"
#include "core/random.h"
#include "core/sgd.h"

namespace clr {
namespace {

// A number of one type as a lane of core/sgd.h.
template <class Real>
struct One {
  Real x;
  __device__ static One all(Real x) { return {x}; }
};
template <class Real>
__device__ One<Real> operator-(One<Real> a) {
  return {-a.x};
}
template <class Real>
__device__ One<Real> operator*(One<Real> a, One<Real> b) {
  return {a.x * b.x};
}
__device__ One<float> fused(One<float> a, One<float> b, One<float> c) { return {__fmaf_rn(a.x, b.x, c.x)}; }
__device__ One<double> fused(One<double> a, One<double> b, One<double> c) { return {__fma_rn(a.x, b.x, c.x)}; }

__device__ size_t thread_number() { return blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; }

template <class Real>
__device__ void update_one(const SgdCoefficients<Real>& c, const Real* gradient, Real* parameter, Real* buffer) {
  One<Real> p = {*parameter}, m = {*buffer};
  update(c, p, One<Real>{*gradient}, m);
  *parameter = p.x;
  *buffer = m.x;
}

}  // namespace

// What a schedule is made of: see with_boundaries() of bind_schedule.cpp.
struct Asked {
  double base_lr, max_lr, base_momentum, max_momentum, gamma;
  uint64_t up, down, decay_steps;
  int32_t curve, window, mode, decay_base;
  DoubleDouble lead, length;
};

extern "C" __global__ void make_pieces(const Asked* asked, size_t count, Piece* pieces) {
  const size_t i = thread_number();
  if (i >= count) return;
  const Asked& a = asked[i];
  Policy p{};
  p.base_lr = a.base_lr;
  p.lr_amplitude = two_sum(a.max_lr, -a.base_lr);
  p.base_momentum = a.base_momentum;
  p.max_momentum = a.max_momentum;
  p.momentum_amplitude = two_sum(a.max_momentum, -a.base_momentum);
  p.curve = static_cast<CurveKind>(a.curve);
  p.window = static_cast<Window>(a.window);
  p.mode = static_cast<Mode>(a.mode);
  p.up = a.up;
  p.down = a.down;
  p.decay_steps = a.decay_steps;
  p.base_decay = a.decay_base;
  p.lead = a.lead;
  p.length = a.length;
  p.log_gamma =
      p.curve == CurveKind::exponential ? add(logarithm(a.max_lr), negated(logarithm(a.base_lr))) : logarithm(a.gamma);
  pieces[i] = {0, UINT64_MAX, p, {}};
}

extern "C" __global__ void schedule_values(const Piece* pieces, const uint64_t* steps, size_t n_steps,
                                           const double* scales, Value* values) {
  const size_t i = thread_number();
  if (i >= n_steps) return;
  const Piece& piece = piece_at(pieces + blockIdx.y, 1, steps[i]);
  values[blockIdx.y * n_steps + i] = evaluate(piece.policy, step_in(piece, steps[i]), scales[i]);
}

extern "C" __global__ void update_float(SgdCoefficients<float> c, const float* g, float* p, float* m, size_t n) {
  for (size_t i = thread_number(); i < n; i += gridDim.x * static_cast<size_t>(blockDim.x)) {
    update_one(c, g + i, p + i, m + i);
  }
}

extern "C" __global__ void update_double(SgdCoefficients<double> c, const double* g, double* p, double* m, size_t n) {
  for (size_t i = thread_number(); i < n; i += gridDim.x * static_cast<size_t>(blockDim.x)) {
    update_one(c, g + i, p + i, m + i);
  }
}

extern "C" __global__ void random_numbers(uint64_t seed, uint64_t update, uint64_t parameter, uint64_t first,
                                          uint32_t* numbers) {
  const size_t i = thread_number();
  numbers[i] = random_bits(random_key(seed, update, parameter), first + i);
}

constexpr int kThreads = 128;

// Squares of float32 in double-double: 16 bytes a thread while there are four, then one by one; a block's sums meet in
// shared memory; the last block adds those of all blocks, in order. `parts` has room for every block, `out` for
// a sum and its root.
extern "C" __global__ void __launch_bounds__(kThreads)
    square_sum(const float* x, size_t n, DoubleDouble* parts, unsigned int* ticket, DoubleDouble* out) {
  __shared__ DoubleDouble sums[kThreads / 32];
  __shared__ bool last;
  DoubleDouble sum = {0.0, 0.0};
  const size_t threads = gridDim.x * static_cast<size_t>(blockDim.x);
  for (size_t i = thread_number(); i < n / 4; i += threads) {
    const float4 four = reinterpret_cast<const float4*>(x)[i];
    for (const double v : {four.x, four.y, four.z, four.w}) sum = grown(sum, two_product(v, v));
  }
  for (size_t i = n / 4 * 4 + thread_number(); i < n; i += threads) sum = grown(sum, two_product(x[i], x[i]));
  for (int other = 16; other > 0; other /= 2) {
    sum = grown(sum, DoubleDouble{__shfl_down_sync(~0u, sum.hi, other), __shfl_down_sync(~0u, sum.lo, other)});
  }
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
#if !defined(PLANTED_NO_BARRIER)
  __syncthreads();
#endif
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < kThreads / 32; ++warp) sum = grown(sum, sums[warp]);
    parts[blockIdx.x] = sum;
    __threadfence();
    last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  __threadfence();
  DoubleDouble total = {0.0, 0.0};
  for (unsigned int i = 0; i < gridDim.x; ++i) total = grown(total, parts[i]);
  out[0] = settled(total);
  out[1] = square_root(out[0]);
}

}  // namespace clr
