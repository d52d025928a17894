// A tensor that a kernel cannot go through, and the dense copy that a slot works on in its place.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "cpu/strided.h"
#include "python/torch/tensor_view.h"

namespace clr {

class DenseCopy {
 public:
  enum class Use { read, read_and_written };

  // Fills the copy. `slot`: the number of the slot that works on it; `dense`: its layout. On the CPU its memory is our
  // own and nothing here runs Python; on a device it is a tensor like `like`.
  DenseCopy(std::size_t slot, py::object original, const DLTensor& view, const Layout& dense, py::handle like, Use use);

  std::size_t slot() const { return slot_; }
  void* data() const { return data_; }

  void fill() const;
  // Writes the copy back into the original, if the use says that it is written.
  void put_back() const;

 private:
  std::vector<StridedDimension> dimensions(bool back) const;

  std::size_t slot_;
  Use use_;
  py::object original_, tensor_;  // tensor_: on a device
  std::unique_ptr<std::byte[]> memory_;
  void *data_ = nullptr, *original_data_ = nullptr;
  Layout layout_, dense_;
};

}  // namespace clr
