// Sums of squares and the search for infinities, once for all instruction sets and types. Included after F32 and F64.
#include "core/norm.h"
#include "cpu/kernels.h"
#include "kernel/lanes.h"

namespace clr {
namespace {

// There are sixteen sums side by side, however wide a register is.
constexpr int kSums = kNormSums;
using Wide = Pack<F64, kSums / F64::width>;
using Narrow = Pack<F32, kSums / F32::width>;

CLR_INLINE void widen(const Narrow& from, Wide& to) {
  constexpr int count = F32::width / F64::width;
  for (int i = 0; i < kSums / F32::width; ++i) {
    Pack<F64, count> part;
    widen(from.lanes[i], part);
    for (int j = 0; j < count; ++j) to.lanes[i * count + j] = part.lanes[j];
  }
}

// Reads the first n of sixteen elements, and zeros for the rest.
template <class Element>
CLR_INLINE void read_wide(const Element* from, int n, Wide& to) {
  Narrow narrow;
  n == kSums ? load(from, narrow) : load_first(from, n, narrow);
  widen(narrow, to);
}

CLR_INLINE void read_wide(const double* from, int n, Wide& to) {
  n == kSums ? load(from, to) : load_first(from, n, to);
}

// The sums, and the errors that they have collected. This is not HiLo<Wide>, because compilers keep that in memory.
struct Sums {
  Wide hi = Wide::all(0.0), lo = Wide::all(0.0);

  HiLo<F64> operator[](int i) const { return {hi.lanes[i], lo.lanes[i]}; }
  void put(int i, HiLo<F64> sum) {
    hi.lanes[i] = sum.hi;
    lo.lanes[i] = sum.lo;
  }
};

// Adds halves to each other, down to one number: first sums i and i + 8, then sums i and i + 4, ...
CLR_INLINE DoubleDouble folded(Sums& sums) {
  for (int half = kSums / F64::width / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) sums.put(i, grown(sums[i], sums[i + half]));
  }
  double hi[F64::width], lo[F64::width];
  store(sums.hi.lanes[0], hi);
  store(sums.lo.lanes[0], lo);
  for (int half = F64::width / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) {
      const DoubleDouble sum = grown(DoubleDouble{hi[i], lo[i]}, DoubleDouble{hi[i + half], lo[i + half]});
      hi[i] = sum.hi;
      lo[i] = sum.lo;
    }
  }
  return settled({hi[0], lo[0]});
}

template <bool limits, class Element>
CLR_INLINE void add_squares(Sums& sums, const Element* from, int n, F64 limit) {
  Wide wide;
  read_wide(from, n, wide);
  for (int i = 0; i < kSums / F64::width; ++i) {
    const F64 x = limits ? limited(wide.lanes[i], limit) : wide.lanes[i];
    sums.put(i, grown_by_square<(sizeof(Element) < sizeof(double))>(sums[i], x));
  }
}

template <bool limits, class Element>
CLR_INLINE void add_run(Sums& sums, const Element* array, int64_t begin, int64_t end, F64 limit) {
  int64_t i = begin;
  for (; i + kSums <= end; i += kSums) add_squares<limits>(sums, array + i, kSums, limit);
  if (i < end) add_squares<limits>(sums, array + i, static_cast<int>(end - i), limit);
}

template <bool limits, class Element>
DoubleDouble squares_of(const Element* array, int64_t begin, int64_t end, double limit) {
  const F64 within = F64::all(limit);
  Sums joined;
  for (int64_t run = begin; run < end; run += kNormRun) {
    Sums sums;
    add_run<limits>(sums, array, run, run + kNormRun < end ? run + kNormRun : end, within);
    for (int i = 0; i < kSums / F64::width; ++i) joined.put(i, run == begin ? sums[i] : grown(joined[i], sums[i]));
  }
  return folded(joined);
}

// Adds up x * 0, which is 0, or NaN if x is not finite. A NaN stays in the sum.
template <class Lane, class Element>
bool all_finite_in(const Element* array, int64_t begin, int64_t end) {
  using Block = Pack<Lane, 2 * kLanesPerBlock>;
  Block sums = Block::all(0), x;
  int64_t i = begin;
  for (; i + Block::width <= end; i += Block::width) {
    load(array + i, x);
    sums = fused(x, Block::all(0), sums);
  }
  if (i < end) {
    load_first(array + i, static_cast<int>(end - i), x);
    sums = fused(x, Block::all(0), sums);
  }
  for (int half = kLanesPerBlock; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) sums.lanes[j] = sums.lanes[j] + sums.lanes[j + half];
  }
  typename Lane::Real all[Lane::width], sum = 0;
  store(sums.lanes[0], all);
  for (int j = 0; j < Lane::width; ++j) sum += all[j];
  return sum == 0;
}

bool all_finite(const void* array, DType dtype, int64_t begin, int64_t end) {
  switch (dtype) {
    case DType::float32:
      return all_finite_in<F32>(static_cast<const float*>(array), begin, end);
    case DType::float64:
      return all_finite_in<F64>(static_cast<const double*>(array), begin, end);
    case DType::bfloat16:
      return all_finite_in<F32>(static_cast<const Bfloat16*>(array), begin, end);
    case DType::float16:
      return all_finite_in<F32>(static_cast<const Float16*>(array), begin, end);
  }
  return false;
}

template <class Element>
DoubleDouble squares_of(const void* array, int64_t begin, int64_t end, double limit) {
  const Element* const elements = static_cast<const Element*>(array);
  if (limit == 0.0) return squares_of<false>(elements, begin, end, 0.0);
  // Limits in the arithmetic of the update.
  const double rounded = sizeof(Element) < sizeof(double) ? static_cast<double>(static_cast<float>(limit)) : limit;
  return squares_of<true>(elements, begin, end, rounded);
}

DoubleDouble squares_of(const void* array, DType dtype, int64_t begin, int64_t end, double limit) {
  switch (dtype) {
    case DType::float32:
      return squares_of<float>(array, begin, end, limit);
    case DType::float64:
      return squares_of<double>(array, begin, end, limit);
    case DType::bfloat16:
      return squares_of<Bfloat16>(array, begin, end, limit);
    case DType::float16:
      return squares_of<Float16>(array, begin, end, limit);
  }
  return {0.0, 0.0};
}

// Without a limit, a finite sum means that all numbers are finite. Otherwise the numbers are read once more: large
// doubles have infinite squares, and a limit hides infinities.
NormPart sum_squares(const void* array, DType dtype, int64_t begin, int64_t end, double limit) {
  const DoubleDouble squares = squares_of(array, dtype, begin, end, limit);
  const bool surely = limit == 0.0 && squares.hi - squares.hi == 0.0;
  return {squares, surely || all_finite(array, dtype, begin, end)};
}

}  // namespace
}  // namespace clr
