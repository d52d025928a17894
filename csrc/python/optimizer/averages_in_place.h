// Puts the averages of weights in the place of the weights, and back. Each direction is one call that nothing can
// interrupt: after an exception in the middle, nobody would know which of two tensors holds the weight.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "python/torch/dense_copy.h"

namespace clr {

class AveragesInPlace {
 public:
  // `entries()` returns a list of (parameter, average, master weight or None), or throws.
  explicit AveragesInPlace(py::object entries) : entries_(std::move(entries)) {}

  bool is_inside() const { return inside_; }

  // Throws RuntimeError within the block. `what` names the call that is not allowed there.
  void refuse_inside(const std::string& what) const {
    if (inside_) throw std::runtime_error(what + " inside averaged_weights(): leave it first");
  }

  // Throws, with nothing changed, if a tensor does not fit.
  void enter();
  void leave();

  int traverse(visitproc visit, void* arg) const {
    Py_VISIT(entries_.ptr());
    Py_VISIT(inside_entries_.ptr());
    return 0;
  }
  void clear() { entries_ = inside_entries_ = py::object(); }

 private:
  void exchange(bool entering);

  py::object entries_, inside_entries_;
  bool inside_ = false;
};

}  // namespace clr
