// Copies between two layouts of the same elements, for tensors that the kernels cannot go through.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace clr {

// A dimension of `size` elements, and how many elements lie between neighbours in each of two layouts.
struct StridedDimension {
  std::int64_t size, to, from;
};

// Copies every element. Those of `to` must not overlap; those of `from` may (a stride of 0 is an expanded dimension).
void copy_strided(std::vector<StridedDimension> dimensions, std::size_t element_bytes, void* to, const void* from);

}  // namespace clr
