#include "cpu/bulk_loop.inl"
#include "cpu/lanes_avx2.h"
#include "cpu/norm_loop.inl"
#include "cpu/sgd_loop.inl"

namespace clr {

const CpuKernels avx2_kernels = {update_slot, evaluate_one, evaluate_alike, fill_range, sum_squares, all_finite};

}  // namespace clr
