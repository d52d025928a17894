// The functions that every instruction set provides. Their translation units include nothing from the C++ library: the
// linker might keep an inline function that was compiled for AVX-512 there.
#pragma once

#include "core/norm.h"
#include "core/schedule.h"
#include "core/slot.h"

namespace clr {

// From where to where a loop goes over elements.
struct Span {
  int64_t begin, end;
};

struct CpuKernels {
  // Updates a part of the slot.
  void (*update)(const GradientValues& gradients, const GroupValues& group, const Slot& slot, Span span);

  // The value of one step.
  Value (*evaluate)(const Policy& policy, uint64_t step, double custom);

  // The values of one step, for policies that all move alike.
  void (*evaluate_alike)(const Policy* policies, int64_t count, uint64_t step, Value* values);

  // Values of `count` steps from `first` on. `custom`: the scales of Mode::custom, one a step, else unused.
  void (*fill_range)(const Policy& policy, uint64_t first, int64_t count, const double* custom, double* lr,
                     double* momentum);

  // The sum of the squares of elements begin to end of an array, at most kNormChunk of them, each first brought within
  // plus and minus `limit` unless that is 0. `finite` speaks of the elements as they stand in the array. Squares below
  // 2^-968, which only float64 has, lose digits.
  NormPart (*sum_squares)(const void* array, DType dtype, int64_t begin, int64_t end, double limit);

  // True if no element from begin to end of an array is infinite or NaN.
  bool (*all_finite)(const void* array, DType dtype, int64_t begin, int64_t end);
};

extern const CpuKernels baseline_kernels;
#if defined(CLR_NATIVE_X86)
extern const CpuKernels avx2_kernels, avx512_kernels;
#endif
#if defined(CLR_NATIVE_NEON)
extern const CpuKernels neon_kernels;
#endif

}  // namespace clr
