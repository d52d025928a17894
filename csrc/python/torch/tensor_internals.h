// What torch's tensors look like inside, as far as experiments with tensors of our own show it, once. A step over many
// small tensors waits for memory, and for calls: the answers here come without either.
#pragma once

#include <Python.h>

#include <cstdint>
#include <cstring>

#include "core/prefetch.h"

namespace clr {

class TensorInternals {
 public:
  TensorInternals();  // needs torch

  // Asks for the memory that reading a tensor looks at: torch spreads a tensor over several objects that each name the
  // next. Each stage reads what the stage before has asked for, so stages of one tensor lie some tensors apart. Where
  // an object names the next serves prefetches alone: a guess that is wrong costs time and nothing else. `tensor`: a
  // tensor that lives, or null.
  enum class Stage { object, tensor, parts, gradient };
  static constexpr int kStages = 4;
  CLR_INLINE_MEMBER void prefetch(Stage stage, PyObject* tensor) const {
    switch (stage) {
      case Stage::object:
        return prefetch_line(tensor);
      case Stage::tensor:
        return prefetch_bytes(impl(tensor), kImplBytes);
      case Stage::parts:
        prefetch_line(named(impl(tensor), storage_));
        prefetch_line(named(impl(tensor), version_));
        return prefetch_line(named(impl(tensor), autograd_));
      case Stage::gradient:
        return prefetch_bytes(named(named(impl(tensor), autograd_), grad_), kImplBytes);
    }
  }

  // Returns false if a tensor of one of torch's own types is no lazy negative, and true if only torch can tell.
  CLR_INLINE_MEMBER bool may_be_negative(PyObject* tensor) const {
    if (negative_ == 0) return true;
    std::uint64_t word = 0;
    std::memcpy(&word, static_cast<const char*>(impl(tensor)) + negative_word_, sizeof word);
    return (word & negative_) != 0;
  }

 private:
  void find_pointers();
  void find_negative();

  static constexpr int kUnknown = -1;
  static constexpr std::size_t kImplBytes = 192;  // of torch's own tensor, or about that

  // Returns the pointer at this offset of an object, or null.
  static CLR_INLINE_MEMBER const void* named(const void* object, int offset) {
    const void* next = nullptr;
    if (object != nullptr && offset != kUnknown) {
      std::memcpy(static_cast<void*>(&next), static_cast<const char*>(object) + offset, sizeof next);
    }
    return next;
  }
  CLR_INLINE_MEMBER const void* impl(PyObject* tensor) const { return named(tensor, impl_); }

  // The offsets of pointers: to torch's own tensor in Python's, to storage, version counter and autograd's part in that
  // one, and to the gradient in autograd's part.
  int impl_ = kUnknown, storage_ = kUnknown, version_ = kUnknown, autograd_ = kUnknown, grad_ = kUnknown;
  // The one bit that lazy negatives have and other tensors have not, in the word at this offset. 0 if it was not found.
  int negative_word_ = 0;
  std::uint64_t negative_ = 0;
};

}  // namespace clr
