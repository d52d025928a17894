// Copies between two layouts of the same elements, for tensors whose layout the kernels cannot handle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace clr {

// A dimension of `size` elements, with its stride in elements in each of two layouts.
struct StridedDimension {
  std::int64_t size, to, from;
};

// Copies every element. Those of `to` must not overlap; those of `from` may (a stride of 0 is an expanded dimension).
void copy_strided(std::vector<StridedDimension> dimensions, std::size_t element_bytes, void* to, const void* from);

// A dense copy that a slot works on instead of the tensor.
class StridedCopy {
 public:
  enum class Use { read, read_and_written };

  // Fills the copy, of `bytes` bytes. `slot`: the number of the slot that works on it; `dimensions`: the strides to the
  // copy, from the original.
  StridedCopy(std::size_t slot, void* original, std::size_t element_bytes, std::vector<StridedDimension> dimensions,
              std::size_t bytes, Use use);

  std::size_t slot() const { return slot_; }
  void* data() const { return memory_.get(); }

  void fill() const;
  // Writes the copy back into the original if `use` says that the copy is written.
  void put_back() const;

 private:
  std::size_t slot_;
  void* original_;
  std::size_t element_bytes_;
  std::vector<StridedDimension> dimensions_;
  std::unique_ptr<std::byte[]> memory_;
  Use use_;
};

}  // namespace clr
