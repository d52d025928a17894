#include "kernel/strided.h"

#include <algorithm>
#include <utility>

namespace clr {

namespace {

template <class Element>
void copy(const std::vector<StridedDimension>& dimensions, std::size_t depth, Element* to, const Element* from) {
  const StridedDimension& dimension = dimensions[depth];
  if (depth + 1 == dimensions.size()) {
    for (std::int64_t i = 0; i < dimension.size; ++i) to[i * dimension.to] = from[i * dimension.from];
    return;
  }
  for (std::int64_t i = 0; i < dimension.size; ++i) {
    copy(dimensions, depth + 1, to + i * dimension.to, from + i * dimension.from);
  }
}

}  // namespace

void copy_strided(std::vector<StridedDimension> dimensions, std::size_t element_bytes, void* to, const void* from) {
  if (dimensions.empty()) dimensions.push_back({1, 1, 1});
  // Sorts the dimensions so that neighbours in the written memory are written one after the other.
  std::stable_sort(dimensions.begin(), dimensions.end(),
                   [](const StridedDimension& a, const StridedDimension& b) { return a.to > b.to; });
  if (element_bytes == 2) copy(dimensions, 0, static_cast<std::uint16_t*>(to), static_cast<const std::uint16_t*>(from));
  if (element_bytes == 4) copy(dimensions, 0, static_cast<std::uint32_t*>(to), static_cast<const std::uint32_t*>(from));
  if (element_bytes == 8) copy(dimensions, 0, static_cast<std::uint64_t*>(to), static_cast<const std::uint64_t*>(from));
}

StridedCopy::StridedCopy(std::size_t slot, void* original, std::size_t element_bytes,
                         std::vector<StridedDimension> dimensions, std::size_t bytes, Use use)
    : slot_(slot),
      original_(original),
      element_bytes_(element_bytes),
      dimensions_(std::move(dimensions)),
      memory_(new std::byte[std::max<std::size_t>(bytes, 1)]),
      use_(use) {
  fill();
}

void StridedCopy::fill() const { copy_strided(dimensions_, element_bytes_, memory_.get(), original_); }

void StridedCopy::put_back() const {
  if (use_ == Use::read) return;
  std::vector<StridedDimension> back = dimensions_;
  for (StridedDimension& dimension : back) std::swap(dimension.to, dimension.from);
  copy_strided(std::move(back), element_bytes_, original_, memory_.get());
}

}  // namespace clr
