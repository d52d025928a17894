// The pass over gradients that clipping, LARS and the search for infinities need, with the bits of cpu/norm.cpp.
//
// Sums of squares are formed in double for each element. Only in double are squares exact, so only then does the norm
// have the CPU's bits and lie within 0.5 ulp. clr_step has no double arithmetic but for doubles.
#include "cuda/lanes_cuda.h"
#include "cuda/last_block.h"
#include "cuda/table_values.h"

namespace clr {
namespace {

constexpr int kWarp = 32;
constexpr unsigned kWholeWarp = ~0u;
constexpr int kAtOnce = 16;  // elements that a thread has asked for and not yet added
constexpr double kInfinity = __builtin_huge_val();
static_assert(kPartSums == kWarp && 2 * kNormSums == kWarp, "a warp combines parts, half of one makes a part");

template <class Element>
__device__ __forceinline__ F32 read_one(const Element* from) {
  F32 x;
  load(from, x);
  return x;
}

__device__ __forceinline__ F64 read_one(const double* from) { return {*from}; }

__device__ __forceinline__ F64 in_double(F32 x) { return {static_cast<double>(x.x)}; }
__device__ __forceinline__ F64 in_double(F64 x) { return x; }

// The sum that one thread forms over its elements of a chunk.
template <class Element, bool squares>
struct Sum {
  using Lane = decltype(read_one(static_cast<const Element*>(nullptr)));
  Lane limit;
  HiLo<F64> squared = {{0.0}, {0.0}};
  Lane zeros = {0};  // x * 0 is 0, or NaN if x is not finite; a NaN stays in the sum

  // Limits in the arithmetic of the update. An infinite limit changes nothing.
  __device__ explicit Sum(double within) : limit{static_cast<typename Lane::Real>(within)} {}

  __device__ __forceinline__ void add(Lane x) {
    zeros = fused(x, Lane::all(0), zeros);
    if constexpr (squares) {
      squared = grown_by_square<(sizeof(Element) < sizeof(double))>(squared, in_double(limited(x, limit)));
    }
  }
};

// Adds up the sums of `width` neighbouring threads: sum i takes in sum i + width / 2, then i + width / 4, ... The first
// thread has the result.
template <int width>
__device__ __forceinline__ NormPart folded(DoubleDouble sum, bool finite) {
  const unsigned all = kWholeWarp >> (kWarp - width) << (threadIdx.x % kWarp / width * width);
  for (int half = width / 2; half > 0; half /= 2) {
    sum = grown(sum,
                DoubleDouble{__shfl_down_sync(all, sum.hi, half, width), __shfl_down_sync(all, sum.lo, half, width)});
  }
  return {settled(sum), __all_sync(all, finite) != 0};
}

// Half a warp works on a chunk. Each of its threads holds one of the sums, so neighbouring threads read neighbouring
// elements, however they are aligned.
template <bool squares, class Element>
__device__ NormPart part_of(const Element* from, int count, double limit) {
  Sum<Element, squares> sum(limit);
  int i = static_cast<int>(threadIdx.x) % kNormSums;
  for (; i + (kAtOnce - 1) * kNormSums < count; i += kAtOnce * kNormSums) {
    typename Sum<Element, squares>::Lane x[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) x[j] = read_one(from + i + j * kNormSums);
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) sum.add(x[j]);
  }
  for (; i < count; i += kNormSums) sum.add(read_one(from + i));
  return folded<kNormSums>({sum.squared.hi.x, sum.squared.lo.x}, sum.zeros.x == 0);
}

template <bool squares>
__device__ NormPart part_of(Numbers numbers, int64_t begin, int64_t end, double limit) {
  const int count = static_cast<int>(end - begin);
  switch (numbers.dtype) {
    case DType::float32:
      return part_of<squares>(static_cast<const float*>(numbers.array) + begin, count, limit);
    case DType::float64:
      return part_of<squares>(static_cast<const double*>(numbers.array) + begin, count, limit);
    case DType::bfloat16:
      return part_of<squares>(static_cast<const Bfloat16*>(numbers.array) + begin, count, limit);
    case DType::float16:
      return part_of<squares>(static_cast<const Float16*>(numbers.array) + begin, count, limit);
  }
  return {};
}

// The values that this launch is to find.
struct Wanted {
  bool squares;  // False if only finiteness is checked
  bool trusts;
  double limit;  // of gradients
};

__device__ Wanted wanted_by(const DeviceStep& step) {
  const double limit = step.gradients.limit / scale_of(step);
  return {step.max_norm != 0.0 || step.trusts, step.trusts, limit == 0.0 ? kInfinity : limit};
}

// Computes the parts of a chunk. Without a gradient they are zeros.
__device__ void measure_chunk(const DeviceWork& work, const Wanted& wanted, uint64_t number) {
  const DeviceChunk chunk = work.chunks[number];
  const Slot& slot = work.slots[chunk.slot];
  const int count = wanted.trusts && slot.trusted ? 2 : 1;
#pragma unroll 1
  for (int i = 0; i < count; ++i) {
    const Numbers numbers = i == 0 ? Numbers{slot.gradient, slot.gradient_dtype} : weight_of(slot);
    const double limit = i == 0 ? wanted.limit : kInfinity;
    NormPart part;
    if (slot.gradient != nullptr) {
      part = wanted.squares ? part_of<true>(numbers, begin_of(chunk), end_of(chunk, slot), limit)
                            : part_of<false>(numbers, begin_of(chunk), end_of(chunk, slot), limit);
    }
    if (threadIdx.x % kNormSums == 0) work.parts[static_cast<uint64_t>(i) * work.chunk_count + number] = part;
  }
}

// Computes combined() (core/norm.h) with a warp. The first thread has the result.
template <class Parts>
__device__ NormPart combined_by_warp(const Parts& parts, uint64_t count) {
  const NormPart sum = part_sum(parts, count, threadIdx.x % kWarp);
  return folded<kWarp>(sum.squares, sum.finite);
}

__device__ double norm_of(const NormPart* parts, uint64_t count) {
  return square_root(combined_by_warp(parts, count).squares).hi;
}

// The lengths of a slot's parameter and gradient.
struct Lengths {
  double parameter, gradient;
};

// Returns the lengths of what this process has of a slot. The first thread of a warp has them.
__device__ Lengths lengths_of(const DeviceWork& work, uint64_t slot) {
  const NormPart* const parts = work.parts + work.first_chunks[slot];
  const uint64_t count = norm_chunks(work.slots[slot].size);
  const double gradient = norm_of(parts, count);
  return {norm_of(parts + work.chunk_count, count), gradient};
}

// Returns the lengths of a slot's whole parameter and gradient, which processes may have added up.
__device__ Lengths whole_lengths_of(const DeviceWork& work, uint64_t slot) {
  const uint32_t place = work.numbers == nullptr ? 0 : work.places[slot].ratio;
  if (place == 0) return lengths_of(work, slot);
  return {square_root(work.numbers[place]), square_root(work.numbers[place + 1])};
}

// Finds the trust ratios of slots. `factor`: the factor of gradients before the update.
__device__ void find_trust_ratios(const DeviceState& state, const DeviceWork& work, double factor) {
  for (uint64_t i = threadIdx.x / kWarp; i < work.slot_count; i += kDeviceThreads / kWarp) {
    Slot& slot = work.slots[i];
    if (!slot.trusted) continue;
    const Lengths of = whole_lengths_of(work, i);
    const GroupSettings& group = state.settings[slot.group];
    if (threadIdx.x % kWarp != 0) continue;
    slot.trust_ratio =
        trust_ratio(group.trust_coefficient, group.trust_eps, group.weight_decay, of.parameter, factor * of.gradient);
  }
}

// Makes of `total`, which the first thread has, what the step needs. All threads of one block do this together.
__device__ void conclude(DeviceState& state, const DeviceWork& work, const DeviceStep& step, const NormPart& total) {
  __shared__ double factor;
  if (threadIdx.x == 0) {
    state.refused = work.numbers != nullptr && work.numbers[kRefused] != 0.0;
    if (!state.refused) {
      const DoubleDouble norm = scaled(square_root(total.squares), scale_of(step));
      state.norm = norm.hi;
      state.clip_coefficient = step.max_norm != 0.0 ? clip_coefficient(norm, step.max_norm) : 1.0;
      state.finite = total.finite;
    }
    state.ticket = 0;
    factor = scale_of(step) * state.clip_coefficient;
  }
  if (!step.trusts) return;
  __syncthreads();
  find_trust_ratios(state, work, factor);
}

// The parts of the chunks that go into the sum at this place, and zeros for all others.
struct PartsOfSum {
  const DeviceWork& work;
  uint32_t sum;

  __device__ NormPart operator[](uint64_t i) const {
    const NormPart part = work.parts[i];
    return work.places[work.chunks[i].slot].sum == sum ? part : NormPart{{0.0, 0.0}, part.finite};
  }
};

// Writes all numbers that processes add up. All threads of the last block do this together.
__device__ void put_numbers(DeviceState& state, const DeviceWork& work, const DeviceStep& step) {
  for (uint32_t i = threadIdx.x; i < work.number_count; i += kDeviceThreads) work.numbers[i] = 0.0;
  __syncthreads();
  const uint32_t warp = threadIdx.x / kWarp;
  const bool is_first = threadIdx.x % kWarp == 0;
  for (uint32_t i = warp; i < work.sum_count; i += kDeviceThreads / kWarp) {
    const NormPart part = combined_by_warp(PartsOfSum{work, work.sums[i]}, work.chunk_count);
    if (!is_first) continue;
    work.numbers[work.sums[i]] = part.squares.hi;
    if (i != 0) continue;
    work.numbers[kNonfinite] = part.finite ? 0.0 : 1.0;
    work.numbers[kUpdates] = 1.0;
    state.ticket = 0;
  }
  for (uint64_t i = warp; step.trusts && i < work.slot_count; i += kDeviceThreads / kWarp) {
    const SharedPlaces places = work.places[i];
    if (!work.slots[i].trusted || places.sum == 0 || places.ratio == 0) continue;
    const Lengths own = lengths_of(work, i);
    if (!is_first) continue;
    work.numbers[places.ratio] = own.parameter * own.parameter;
    work.numbers[places.ratio + 1] = own.gradient * own.gradient;
  }
}

// The last block does this after all others.
__device__ void finish_norms(DeviceState& state, const DeviceWork& work, const DeviceStep& step) {
  if (work.numbers != nullptr) return put_numbers(state, work, step);
  NormPart total;
  if (threadIdx.x < kWarp) total = combined_by_warp(work.parts, work.chunk_count);
  conclude(state, work, step, total);
}

}  // namespace

// Finds norm, clip_coefficient and finite of the state, and the trust ratios of slots; or the numbers that processes
// add up, if there are any. Changes nothing else. A warp takes two neighbouring chunks. If there are few chunks, they
// are spread over many blocks.
extern "C" __global__ __launch_bounds__(kDeviceThreads, 2) void clr_norm(DeviceState* state, DeviceWork work,
                                                                         DeviceStep step) {
  const Wanted wanted = wanted_by(step);
  const uint64_t warp = blockIdx.x + static_cast<uint64_t>(threadIdx.x / kWarp) * gridDim.x;
  const uint64_t warps = static_cast<uint64_t>(gridDim.x) * (kDeviceThreads / kWarp);
  for (uint64_t i = 2 * warp + threadIdx.x % kWarp / kNormSums; i < work.chunk_count; i += 2 * warps) {
    measure_chunk(work, wanted, i);
  }
  if (is_last_block(&state->ticket)) finish_norms(*state, work, step);
}

// Finds what clr_norm finds for one process, from the numbers that processes have added up. One block.
extern "C" __global__ __launch_bounds__(kDeviceThreads, 1) void clr_share(DeviceState* state, DeviceWork work,
                                                                          DeviceStep step) {
  NormPart total;
  if (threadIdx.x == 0) {
    total = {total_of(work.numbers, work.sums, work.sum_count), work.numbers[kNonfinite] == 0.0};
  }
  conclude(*state, work, step, total);
}

}  // namespace clr
