// The pass over gradients that clipping, LARS and the search for infinities need, with the bits of cpu/norm.cpp.
//
// Sums of squares are formed in double for each element. Only in double are squares exact, so only then does the norm
// have the CPU's bits and lie within 0.5 ulp. clr_step has no double arithmetic but for doubles.
#include "cuda/lanes_cuda.h"
#include "cuda/progress_turns.h"
#include "cuda/table_values.h"
#include "cuda/work_units.h"

namespace clr {
namespace {

constexpr unsigned kWholeWarp = ~0u;
constexpr int kAtOnce = 16;  // elements that a thread has asked for and not yet added
constexpr double kInfinity = __builtin_huge_val();

constexpr int kCrew = kCrewThreads;
static_assert(2 * kNormSums == kWarp && kNormThreads % kCrew == 0, "half a warp must hold the sums of a run");
static_assert(kPartSums == kNormThreads, "a block combines parts");

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

// Adds up the sums of `width` neighbouring threads: sum i takes in sum i + half, from `half` = width / 2 down. The
// first thread has the result.
template <int width>
__device__ __forceinline__ DoubleDouble folded(DoubleDouble sum) {
  const unsigned all = kWholeWarp >> (kWarp - width) << (threadIdx.x % kWarp / width * width);
  for (int half = width / 2; half > 0; half /= 2) {
    sum = grown(sum,
                DoubleDouble{__shfl_down_sync(all, sum.hi, half, width), __shfl_down_sync(all, sum.lo, half, width)});
  }
  return settled(sum);
}

// The sums of a block's threads, and what its warps have found, for other threads.
struct BlockSums {
  DoubleDouble squares[kNormThreads];
  bool finite[kNormThreads / kWarp];

  __device__ __forceinline__ void put(DoubleDouble sum, bool all_finite) {
    squares[threadIdx.x] = sum;
    const bool whole = __all_sync(kWholeWarp, all_finite) != 0;
    if (threadIdx.x % kWarp == 0) finite[threadIdx.x / kWarp] = whole;
  }
  __device__ __forceinline__ bool all_finite(int first_warp, int end_warp) const {
    bool all = true;
    for (int i = first_warp; i < end_warp; ++i) all = all && finite[i];
    return all;
  }
};

// Sums this thread's elements of a run. Neighbouring threads read neighbouring elements, however they are aligned.
template <bool squares, class Element>
__device__ void sum_run(const Element* from, int count, double limit, BlockSums& sums) {
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
  sums.put({sum.squared.hi.x, sum.squared.lo.x}, sum.zeros.x == 0);
}

template <bool squares>
__device__ void sum_run(Numbers numbers, int64_t begin, int count, double limit, BlockSums& sums) {
  switch (numbers.dtype) {
    case DType::float32:
      return sum_run<squares>(static_cast<const float*>(numbers.array) + begin, count, limit, sums);
    case DType::float64:
      return sum_run<squares>(static_cast<const double*>(numbers.array) + begin, count, limit, sums);
    case DType::bfloat16:
      return sum_run<squares>(static_cast<const Bfloat16*>(numbers.array) + begin, count, limit, sums);
    case DType::float16:
      return sum_run<squares>(static_cast<const Float16*>(numbers.array) + begin, count, limit, sums);
  }
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

// Computes the part of a chunk of `numbers` with a crew, and writes it. Threads without a chunk come along: all of the
// block do this together.
__device__ void measure(const Wanted& wanted, Numbers numbers, int64_t begin, int64_t end, double limit, NormPart* part,
                        BlockSums& sums) {
  const int in_crew = static_cast<int>(threadIdx.x) % kCrew;
  const int64_t first = begin + in_crew / kNormSums * kNormRun;
  const int64_t last = first + kNormRun < end ? first + kNormRun : end;
  const int count = part == nullptr || numbers.array == nullptr || last < first ? 0 : static_cast<int>(last - first);
  wanted.squares ? sum_run<true>(numbers, first, count, limit, sums)
                 : sum_run<false>(numbers, first, count, limit, sums);
  __syncthreads();
  if (in_crew < kNormSums) {
    DoubleDouble joined = sums.squares[threadIdx.x];
    for (int run = 1; run < kCrew / kNormSums; ++run) {
      joined = grown(joined, sums.squares[threadIdx.x + run * kNormSums]);
    }
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const DoubleDouble whole = folded<kNormSums>(joined);
    if (in_crew == 0 && part != nullptr) *part = {whole, sums.all_finite(warp, warp + kCrew / kWarp)};
  }
  __syncthreads();
}

// Computes combined() (core/norm.h) with a block. The first thread has the result.
template <class Parts>
__device__ NormPart combined_by_block(const Parts& parts, uint64_t count, BlockSums& sums) {
  const NormPart own = part_sum(parts, count, threadIdx.x);
  sums.put(own.squares, own.finite);
  __syncthreads();
  int half = kPartSums / 2;
  while (half >= kWarp && static_cast<uint64_t>(half) >= count) half /= 2;
  for (; half >= kWarp; half /= 2) {
    if (threadIdx.x < static_cast<unsigned>(half))
      sums.squares[threadIdx.x] = grown(sums.squares[threadIdx.x], sums.squares[threadIdx.x + half]);
    __syncthreads();
  }
  NormPart whole;
  if (threadIdx.x < kWarp) whole.squares = folded<kWarp>(sums.squares[threadIdx.x]);
  if (threadIdx.x == 0) whole.finite = sums.all_finite(0, kNormThreads / kWarp);
  __syncthreads();
  return whole;
}

// Finds the lengths of a slot from the parts of its chunks.
__device__ void find_lengths(const DeviceWork& work, uint32_t slot, BlockSums& sums) {
  const NormPart* const parts = work.parts + work.first_chunks[slot];
  const uint64_t count = norm_chunks(work.slots[slot].size);
  const NormPart gradient = combined_by_block(parts, count, sums);
  const NormPart parameter = combined_by_block(parts + work.chunk_count, count, sums);
  if (threadIdx.x != 0) return;
  work.lengths[slot] = {square_root(parameter.squares).hi, square_root(gradient.squares).hi};
  work.ended[slot] = 0;
}

// Returns true to the first thread of a crew if it has measured the last chunk of a slot. It then sees the parts of
// all.
__device__ bool ends_slot(const DeviceWork& work, uint32_t slot) {
  __threadfence();
  const bool last = atomicAdd(&work.ended[slot], 1u) + 1 == norm_chunks(work.slots[slot].size);
  __threadfence();
  return last;
}

// Measures a chunk with each crew of a block, and the slots that end with them.
__device__ void measure_unit(const DeviceWork& work, const Wanted& wanted, uint32_t unit) {
  __shared__ BlockSums sums;
  __shared__ bool ends[kCrews];
  const uint32_t crew = threadIdx.x / kCrew, number = unit * kCrews + crew;
  const bool is_there = number < work.chunk_count;
  const DeviceChunk chunk = work.by_size[is_there ? number : 0];
  const Slot& slot = work.slots[chunk.slot];
  NormPart* const part = work.parts + chunk.number;
  const bool trusted = wanted.trusts && slot.trusted && is_there;
  const int64_t begin = begin_of(chunk), end = end_of(chunk, slot);
  measure(wanted, {slot.gradient, slot.gradient_dtype}, begin, end, wanted.limit, is_there ? part : nullptr, sums);
  if (!wanted.trusts) return;
  const Numbers weight = weight_of(slot);
  measure(wanted, {slot.gradient == nullptr ? nullptr : weight.array, weight.dtype}, begin, end, kInfinity,
          trusted ? part + work.chunk_count : nullptr, sums);
  if (threadIdx.x % kCrew == 0) ends[crew] = trusted && ends_slot(work, chunk.slot);
  __syncthreads();
  for (uint32_t i = 0; i < kCrews; ++i) {
    if (ends[i]) find_lengths(work, work.by_size[unit * kCrews + i].slot, sums);
  }
}

// Makes of `total`, which the first thread has, what the step needs.
__device__ void conclude(DeviceState& state, const DeviceWork& work, const DeviceStep& step, const NormPart& total) {
  if (threadIdx.x != 0) return;
  state.ticket = 0;
  state.next_unit = 0;
  state.refused = work.numbers != nullptr && work.numbers[kRefused] != 0.0;
  if (state.refused) return;
  const DoubleDouble norm = scaled(square_root(total.squares), scale_of(step));
  state.norm = norm.hi;
  state.clip_coefficient = step.max_norm != 0.0 ? clip_coefficient(norm, step.max_norm) : 1.0;
  state.finite = total.finite;
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
__device__ void put_numbers(DeviceState& state, const DeviceWork& work, const DeviceStep& step, BlockSums& sums) {
  for (uint32_t i = threadIdx.x; i < work.number_count; i += kNormThreads) work.numbers[i] = 0.0;
  __syncthreads();
  for (uint32_t i = 0; i < work.sum_count; ++i) {
    const NormPart part = combined_by_block(PartsOfSum{work, work.sums[i]}, work.chunk_count, sums);
    if (threadIdx.x != 0) continue;
    work.numbers[work.sums[i]] = part.squares.hi;
    work.numbers[kNonfinite] = part.finite ? 0.0 : 1.0;  // of all parts, whichever sum they go into
  }
  for (uint64_t i = threadIdx.x; step.trusts && i < work.slot_count; i += kNormThreads) {
    const SharedPlaces places = work.places[i];
    if (!work.slots[i].trusted || places.sum == 0 || places.ratio == 0 || work.slots[i].size == 0) continue;
    const SlotLengths own = work.lengths[i];
    work.numbers[places.ratio] = own.parameter * own.parameter;
    work.numbers[places.ratio + 1] = own.gradient * own.gradient;
  }
  if (threadIdx.x != 0) return;
  work.numbers[kUpdates] = 1.0;
  state.ticket = 0;
  state.next_unit = 0;
}

// The last block does this after all others.
__device__ void finish_norms(DeviceState& state, const DeviceWork& work, const DeviceStep& step) {
  __shared__ BlockSums sums;
  if (work.numbers != nullptr) return put_numbers(state, work, step, sums);
  conclude(state, work, step, combined_by_block(work.parts, work.chunk_count, sums));
}

}  // namespace

// Finds norm, clip_coefficient and finite of the state, and the lengths of slots; or the numbers that processes add up,
// if there are any. Changes nothing else.
extern "C" __global__ __launch_bounds__(kNormThreads, kNormBlocks) void clr_norm(DeviceState* state, DeviceWork work,
                                                                                 DeviceStep step) {
  if (is_stale(*state, step)) return;
  const Wanted wanted = wanted_by(step);
  for_units(*state, norm_units(work), [&](uint32_t unit) { measure_unit(work, wanted, unit); });
  if (is_last_block(&state->ticket)) finish_norms(*state, work, step);
}

// Finds what clr_norm finds for one process, from the numbers that processes have added up. One block.
extern "C" __global__ __launch_bounds__(kNormThreads, kNormBlocks) void clr_share(DeviceState* state, DeviceWork work,
                                                                                  DeviceStep step) {
  if (is_stale(*state, step)) return;
  for (uint64_t i = threadIdx.x; step.trusts && i < work.slot_count; i += kNormThreads) {
    const uint32_t place = work.places[i].ratio;
    if (place != 0) work.lengths[i] = {square_root(work.numbers[place]), square_root(work.numbers[place + 1])};
  }
  NormPart total;
  if (threadIdx.x == 0) {
    total = {total_of(work.numbers, work.sums, work.sum_count), work.numbers[kNonfinite] == 0.0};
  }
  conclude(*state, work, step, total);
}

}  // namespace clr
