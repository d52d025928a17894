// A parameter, its gradient and its momentum buffer as a step sees them.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

#include "core/plan.h"
#include "python/tensor_view.h"

namespace clr {

// The tensor objects seen last in one place. Two, since a training loop may use two sets of gradients in turn. Known by
// weak references: an address alone could be another tensor's by now.
class SeenTensors {
 public:
  bool has(PyObject* object, void* data) const { return seen_[0].is(object, data) || seen_[1].is(object, data); }
  void add(PyObject* object, void* data) {
    seen_[1] = std::move(seen_[0]);
    seen_[0] = {py::weakref(object), data};
  }

 private:
  struct Tensor {
    py::object reference;
    void* data = nullptr;
    bool is(PyObject* object, void* at) const;
  };
  Tensor seen_[2];
};

// A parameter that is not dense, and the dense copy that slot number `slot` updates in its place.
struct DenseCopy {
  std::size_t slot;
  py::object parameter, dense;
};

// What must stay alive while a kernel runs. Keeps its memory from step to step.
struct Held {
  std::vector<py::object> tensors;
  std::vector<DenseCopy> copies;

  void clear();
};

class ParameterBinding {
 public:
  ParameterBinding(py::object parameter, std::uint32_t group, std::size_t index);

  const py::object& parameter() const { return parameter_; }
  std::uint32_t group() const { return group_; }

  // `state`: the dict in optimizer.state for this parameter, or null.
  void bind_state(PyObject* state) {
    state_ = py::reinterpret_borrow<py::object>(state);
    state_version_ = 0;
  }

  // Reads and checks everything and adds a slot to the plan, if there is a gradient: returns whether there is. Throws
  // TypeError or ValueError, with nothing changed, for what cannot be updated. Memory that the slot points to is kept
  // alive by `held` and this object.
  bool read(bool group_keeps_buffers, StepPlan& plan, Held& held);

  // Has the memory that the last read() pointed to moved since the read() before?
  bool moved() const { return moved_; }

  // Did the last read() make a buffer?
  bool has_new_buffer() const { return bool(new_buffer_); }

  // Puts a buffer that read() made into optimizer.state.
  void write(const py::dict& optimizer_state);

  int traverse(visitproc visit, void* arg) const;

 private:
  std::string name() const;
  void relayout(const DLTensor& view);
  void require_plain(PyObject* tensor, const char* role) const;
  py::object readable_gradient(py::object grad, DLTensor& view);
  bool read_buffer(bool wanted);
  void adopt_buffer(py::object buffer);

  // In the order of their use: a step over many small tensors waits for memory, not for arithmetic.
  py::object new_buffer_;  // made by read(), not yet in state
  py::object parameter_;
  Layout layout_;  // of the parameter, as last seen
  void* data_ = nullptr;
  std::int64_t size_ = 0;
  bool seen_ = false;
  bool moved_ = true;
  DType dtype_{};
  Density density_{};
  std::uint32_t group_;
  py::object state_;
  std::uint64_t state_version_ = 0;  // of state_, when buffer_ was seen in it
  py::object buffer_;                // the object in state, if buffer_data_ points into it
  void* buffer_data_ = nullptr;
  SeenTensors seen_gradients_;
  std::size_t index_;
};

}  // namespace clr
