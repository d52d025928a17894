// The length of a gradient: how sums of squares are kept and combined, and the factors of clipping and LARS.
#pragma once

#include "core/double_double.h"

namespace clr {

// Squares are summed in chunks of so many elements, counted from the start of a tensor. A chunk is cut into runs, and
// each run has so many sums side by side, element i in sum i modulo their number. The sums of runs join those of the
// first run, one run after another, and are then folded: so many threads of a GPU can sum up a chunk, and no sum has
// many terms in a row. Sums of chunks are combined in one order (`combined`). So the result depends neither on threads
// nor on the instruction set nor on the device.
constexpr int64_t kNormChunk = 16384;
constexpr int64_t kNormRun = 2048;
constexpr int kNormSums = 16;

CLR_INLINE uint64_t norm_chunks(int64_t size) { return static_cast<uint64_t>((size + kNormChunk - 1) / kNormChunk); }

// The sum of some squares. It is infinite if it is too large for a double.
struct NormPart {
  DoubleDouble squares = {0.0, 0.0};
  bool finite = true;  // True if no number that was squared is infinite or NaN
};

// Sums of many terms of one sign, as they grow: `hi` is what plain addition gives, `lo` the sum of its rounding errors,
// so a term waits for one addition only. `settled` makes a double-double of them. After n terms in a row it is off by
// at most n^2 u^2 / 2 of itself, u = 2^-53 (should all errors have one sign), where a sum of m terms that joins another
// one counts as m + 1 in its row: 2^-92 for a chunk, whose runs have 128 terms a sum, join seven times and are folded
// in four levels. Of random terms it is off by about n u^2 / 32.
template <class Number>
CLR_INLINE HiLo<Number> grown(HiLo<Number> sum, HiLo<Number> term) {
  const HiLo<Number> s = two_sum(sum.hi, term.hi);
  return {s.hi, sum.lo + (s.lo + term.lo)};
}

// Infinity and NaN spoil `lo`, never `hi`.
CLR_INLINE DoubleDouble settled(DoubleDouble sum) {
  const DoubleDouble s = fast_two_sum(sum.hi, sum.lo);
  return s.lo - s.lo == 0.0 ? s : DoubleDouble{sum.hi, 0.0};
}

// Adds the square of one more number. `exact`: the number has at most 26 bits, so that its square is a double. The
// square of any other number is added with its rounding error.
template <bool exact, class Number>
CLR_INLINE HiLo<Number> grown_by_square(HiLo<Number> sum, Number x) {
  if constexpr (exact) {
    const HiLo<Number> s = two_sum_product(sum.hi, x, x);
    return {s.hi, sum.lo + s.lo};
  } else {
    const Number square = x * x;
    return grown(sum, {square, fused_once(x, x, -square)});
  }
}

// Must be settled after the last one.
CLR_INLINE NormPart grown(NormPart sum, NormPart term) {
  return {grown(sum.squares, term.squares), sum.finite && term.finite};
}

// The sums of chunks are added up in this many sums, chunk i in sum i modulo their number. The sums are then folded:
// sum i takes in sum i + 256, then i + 128, 64, 32, 16, 8, 4, 2, 1. Chunks are numbered over all tensors by size alone:
// without a gradient they are zeros, which leave a sum as it is. Off by 2^-97 of the sum for 10^4 chunks, 2^-85 for
// 10^6, beside what the parts are off by.
constexpr int kPartSums = 512;

// Returns sum number `which`, before it is folded. `parts`: an array, or anything else with parts[i].
template <class Parts>
CLR_INLINE NormPart part_sum(const Parts& parts, uint64_t count, uint64_t which) {
  NormPart sum;
  for (uint64_t i = which; i < count; i += kPartSums) sum = grown(sum, parts[i]);
  return sum;
}

// Returns sum number `which` when it has taken in the one that stands `half` behind it. Only the first `sums` sums have
// chunks.
template <class Parts>
static inline NormPart folded_sum(const Parts& parts, uint64_t count, uint64_t which, uint64_t half, uint64_t sums) {
  if (half == sums) return part_sum(parts, count, which);
  return grown(folded_sum(parts, count, which, 2 * half, sums), folded_sum(parts, count, which + half, 2 * half, sums));
}

// Returns the whole sum, formed by one thread.
CLR_INLINE NormPart combined(const NormPart* parts, uint64_t count) {
  if (count < 2) return count == 0 ? NormPart{} : parts[0];
  uint64_t sums = kPartSums;
  while (sums / 2 >= count) sums /= 2;
  const NormPart whole = folded_sum(parts, count, 0, 1, sums);
  return {settled(whole.squares), whole.finite};
}

// Within 5 u^2, u = 2^-53, for settled sums with a.hi above 2^-968: s = round(sqrt(a.hi)) leaves a remainder a - s^2 of
// at most 3 u s^2, which is rounded twice on its way to s + remainder / 2s (3 u^2 / 2 each), a series that is cut after
// its second term (9 u^2 / 8). So `hi` is the rounded root within 0.5 ulp and 2^-50 of one.
CLR_INLINE DoubleDouble square_root(DoubleDouble a) {
  const double s = square_root(a.hi);
  const double remainder = fused(-s, s, a.hi) + a.lo;
  return settled({s, remainder / (s + s)});
}

// Returns the norm of numbers that are all multiplied by `factor`. An infinite norm, or a NaN, has no `lo`.
CLR_INLINE DoubleDouble scaled(DoubleDouble norm, double factor) {
  const double rough = norm.hi * factor;
  return rough - rough == 0.0 ? times(norm, factor) : DoubleDouble{rough, 0.0};
}

// Returns the factor that clips gradients to `max_norm`, min(1, max_norm / (norm + 1e-6)), as in torch's
// clip_grad_norm_ but rounded once: within 0.5 ulp and 2^-40 of one, for max_norm 0 or above 2^-900. It is NaN if the
// norm is; 0 if the norm is infinite, or NaN if max_norm is infinite too.
CLR_INLINE double clip_coefficient(DoubleDouble norm, double max_norm) {
  const double rough = max_norm / (norm.hi + 1e-6);
  if (rough >= 2.0) return 1.0;
  if (norm.hi - norm.hi != 0.0) return rough;
  const double quotient = ratio(DoubleDouble{max_norm, 0.0}, add(norm, 1e-6)).hi;
  return quotient < 1.0 ? quotient : 1.0;
}

// LARS' local learning rate (You, Gitman, Ginsburg 2017, eq. 6), with the eps of apex's LARC(clip=False):
// coefficient |p| / (|g| + weight_decay |p| + eps), and 1 where either norm is 0.
CLR_INLINE double trust_ratio(double coefficient, double eps, double weight_decay, double parameter_norm,
                              double gradient_norm) {
  if (parameter_norm == 0.0 || gradient_norm == 0.0) return 1.0;
  return coefficient * parameter_norm / (gradient_norm + weight_decay * parameter_norm + eps);
}

}  // namespace clr
