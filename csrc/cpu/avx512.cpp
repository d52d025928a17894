#include "cpu/lanes_avx512.h"

#define CLR_LANES_PER_BLOCK 4
#include "cpu/bulk_loop.inl"
#include "cpu/norm_loop.inl"
#include "cpu/sgd_loop.inl"

namespace clr {

const CpuKernels avx512_kernels = {update_slot, evaluate_one, evaluate_alike, fill_range, sum_squares, all_finite};

}  // namespace clr
