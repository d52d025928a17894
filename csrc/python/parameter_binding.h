// A parameter, its gradient and its momentum buffer as a step sees them.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/plan.h"
#include "python/group_binding.h"
#include "python/state_tensor.h"
#include "python/tensor_checks.h"

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

// A parameter or gradient that is not dense, and the dense copy that slot number `slot` writes in its place.
struct DenseCopy {
  std::size_t slot;
  py::object original, dense;
};

// What must stay alive while a kernel runs. Keeps its memory from step to step.
struct Held {
  std::vector<py::object> tensors;
  std::vector<DenseCopy> copies;

  void clear();
};

class ParameterBinding {
 public:
  // Number `index` of the group's parameters, number `position` of all.
  ParameterBinding(py::object parameter, std::uint32_t group, std::size_t index, std::size_t position);

  const py::object& parameter() const { return parameter_; }
  std::uint32_t group() const { return group_; }

  // `state`: the dict in optimizer.state for this parameter, or null.
  void bind_state(PyObject* state) {
    state_ = py::reinterpret_borrow<py::object>(state);
    state_version_ = 0;
  }

  // Reads and checks everything and adds a slot to the plan, if the parameter has a gradient or an average to move:
  // returns whether it did. Throws TypeError or ValueError, with nothing changed, for what cannot be updated. Memory
  // that the slot points to is kept alive by `held` and this object. `writes_unscaled`: the gradient is written too.
  bool read(const GroupBinding& group, bool writes_unscaled, StepPlan& plan, Held& held);

  // Throws RuntimeError.
  [[noreturn]] void refuse_second_gradient() const;

  // Has the memory that the last read() pointed to moved since the read() before?
  bool moved() const { return moved_; }

  // Did the last read() find a gradient?
  bool has_gradient() const { return has_gradient_; }

  // The CUDA device that the last read() found it on, or -1.
  int device() const { return is_cpu(layout_.device) ? -1 : layout_.device.device_id; }

  // Did the last read() point the slot to another buffer, or average, than the read() before?
  bool has_other_buffer() const { return has_other_buffer_; }
  bool has_other_average() const { return has_other_average_; }
  // Does that average hold anything?
  bool average_holds() const { return average_holds_; }

  // Did the last read() make state?
  bool has_new_state() const { return has_new_state_; }

  // Puts the state that read() made into optimizer.state.
  void write(const py::dict& optimizer_state);

  int traverse(visitproc visit, void* arg) const;

 private:
  // State that a plain update has none of.
  struct Tail {
    StateTensor average{"average"}, compensation{"compensation"}, master_weight{"master_weight"};
  };

  std::string name() const { return parameter_name(group_, index_); }
  StateOwner owner() const { return {parameter_, layout_, density_, group_, index_}; }
  void relayout(const DLTensor& view);
  void require_plain(PyObject* tensor, const char* role) const;
  py::object readable_gradient(py::object grad, DLTensor& view);
  void read_gradient(py::object grad, bool writes_unscaled, std::size_t place, Slot& slot, Held& held);
  void read_buffer(const GroupBinding& group, Slot& slot);
  bool read_state(StateTensor& tensor, DType dtype, StateTensor::Content content);
  void read_tail(const GroupTail& tail, bool averages, Slot& slot);
  void drop_new_state();
  void copy_gapped(Slot& slot, StepPlan& plan, Held& held) const;

  // In the order of their use: a step over many small tensors waits for memory, not for arithmetic.
  bool has_gradient_ = false;
  bool has_new_state_ = false;
  bool seen_ = false;
  bool moved_ = true;
  bool has_other_buffer_ = false, has_other_average_ = false, average_holds_ = false;
  DType dtype_{}, buffer_dtype_{};
  Density density_{};
  std::uint32_t group_;
  py::object parameter_;
  Layout layout_;  // of the parameter, as last seen
  void* data_ = nullptr;
  std::int64_t size_ = 0;
  py::object state_;
  std::uint64_t state_version_ = 0;  // of state_, when buffer_ was seen in it
  StateTensor buffer_{"momentum_buffer"};
  std::unique_ptr<Tail> tail_;
  SeenTensors seen_gradients_;
  std::size_t index_, position_;
};

}  // namespace clr
