#include "python/torch/dense_copy.h"

#include <utility>

#include "python/torch/tensor_checks.h"

namespace clr {

StridedCopy strided_copy(std::size_t slot, const DLTensor& view, const Layout& dense, StridedCopy::Use use) {
  const Layout layout(view);
  std::vector<StridedDimension> dimensions;
  dimensions.reserve(dense.ndim());
  for (std::size_t i = 0; i < dense.ndim(); ++i) {
    dimensions.push_back({dense.shape(i), dense.stride(i), layout.stride(i)});
  }
  const std::size_t element_bytes = layout.dtype.bits / 8u;
  const std::size_t bytes = static_cast<std::size_t>(dense.span()) * element_bytes;
  return {slot, data_of(view), element_bytes, std::move(dimensions), bytes, use};
}

DeviceCopy::DeviceCopy(py::object original, py::handle like, StridedCopy::Use use)
    : original_(std::move(original)),
      tensor_(TorchReader::get().empty_like(like, TorchReader::get().dtype(original_).value())),
      data_(data_of(must_read(tensor_, "a dense copy"))),
      use_(use) {
  TorchReader::get().copy(tensor_, original_);
}

void DeviceCopy::put_back() const {
  if (use_ == StridedCopy::Use::read_and_written) TorchReader::get().copy(original_, tensor_);
}

}  // namespace clr
