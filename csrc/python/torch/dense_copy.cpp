#include "python/torch/dense_copy.h"

#include <algorithm>
#include <utility>

#include "python/torch/tensor_checks.h"

namespace clr {

DenseCopy::DenseCopy(std::size_t slot, py::object original, const DLTensor& view, const Layout& dense, py::handle like,
                     Use use)
    : slot_(slot),
      use_(use),
      original_(std::move(original)),
      original_data_(data_of(view)),
      layout_(view),
      dense_(dense) {
  if (is_cpu(layout_.device)) {
    memory_.reset(new std::byte[static_cast<std::size_t>(std::max<std::int64_t>(dense_.span_bytes(), 1))]);
    data_ = memory_.get();
  } else {
    tensor_ = TorchReader::get().empty_like(like);
    data_ = data_of(must_read(tensor_, "a dense copy"));
  }
  fill();
}

std::vector<StridedDimension> DenseCopy::dimensions(bool back) const {
  std::vector<StridedDimension> all;
  for (std::size_t i = 0; i < dense_.ndim(); ++i) {
    const std::int64_t in_copy = dense_.stride(i), in_original = layout_.stride(i);
    all.push_back({dense_.shape(i), back ? in_original : in_copy, back ? in_copy : in_original});
  }
  return all;
}

void DenseCopy::fill() const {
  if (tensor_) return TorchReader::get().copy(tensor_, original_);
  copy_strided(dimensions(false), layout_.dtype.bits / 8u, data_, original_data_);
}

void DenseCopy::put_back() const {
  if (use_ == Use::read) return;
  if (tensor_) return TorchReader::get().copy(original_, tensor_);
  copy_strided(dimensions(true), layout_.dtype.bits / 8u, original_data_, data_);
}

}  // namespace clr
