// A parameter, its gradient and its momentum buffer as a step sees them.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernel/plan.h"
#include "python/optimizer/group.h"
#include "python/torch/dense_copy.h"
#include "python/torch/state_tensor.h"
#include "python/torch/tensor_checks.h"

namespace clr {

// Objects and memory that must stay alive until a step has ended. The vectors keep their memory from step to step.
struct KeepAlive {
  std::vector<py::object> gradients;      // by position of the parameter; null for no gradient
  std::vector<DeviceCopy> device_copies;  // copies that are written back after the update
  std::vector<py::object> replaced;  // objects that the step takes out of dicts: their destruction may run any code
};

// How a step reads its tensors.
struct Reading {
  bool writes_unscaled;   // gradients are written too
  bool only_makes_state;  // only missing state is written: new state must hold zeros
};

class BoundParameter {
  // State that a plain update does not have.
  struct Extras {
    StateTensor average{kAverage}, compensation{kCompensation}, master_weight{kMasterWeight};

    // A stage later than other tensors: this object comes first.
    CLR_INLINE_MEMBER void prefetch(const TensorInternals& internals, TensorInternals::Stage stage) const {
      if (stage == TensorInternals::Stage::object) return prefetch_object(*this);
      const auto before = static_cast<TensorInternals::Stage>(static_cast<int>(stage) - 1);
      for (const StateTensor* tensor : {&average, &compensation, &master_weight}) tensor->prefetch(internals, before);
    }
  };

 public:
  // `index`: place among the group's parameters. `position`: place among all parameters.
  BoundParameter(py::object parameter, std::uint32_t group, std::size_t index, std::size_t position);

  const py::object& parameter() const { return parameter_; }
  std::size_t position() const { return position_; }
  std::uint32_t group() const { return group_; }

  // `state`: the dict in optimizer.state for this parameter, or null.
  void bind_state(PyObject* state) { state_ = WatchedDict(py::reinterpret_borrow<py::object>(state)); }
  bool has_state() const { return bool(state_); }

  // The part of a DTensor that this process holds, see Shard in sgd/sharding.py.
  struct Shard {
    py::object spec;           // by which this was found out
    py::object gradient_spec;  // of the last gradient that was sharded alike: an equal one, and often the same again
    std::uint32_t sum;
    bool counts, has_places;
    Places places;
  };
  // Null for other tensors.
  const Shard* shard() const { return shard_.get(); }
  bool has_shard(PyObject* spec) const { return shard_ && shard_->spec.ptr() == spec; }
  // True if a gradient with this spec is known to be sharded as the parameter is.
  bool has_gradient_spec(PyObject* spec) const {
    return shard_ && (shard_->spec.ptr() == spec || shard_->gradient_spec.ptr() == spec);
  }
  void note_gradient_spec(const py::object& spec) {
    if (shard_) shard_->gradient_spec = spec;
  }
  // Asks an object of sgd/sharding.py where the parameter lies; null for a parameter that is no DTensor.
  void bind_shard(const py::object& sharding);

  std::string name() const { return parameter_name(group_, index_); }

  // Releases the state that a step made and did not write, because the step was skipped or refused.
  void drop_new_state() {
    if (has_new_state_) forget_new_state();
  }

  // A parameter's tensors as they are at the moment. Reading those of several parameters one after the other lets the
  // processor wait for their memory at once. A Look is valid until any Python runs.
  struct Look {
    DLTensor parameter, gradient, buffer;
    bool has_parameter = false, has_gradient = false, has_buffer = false;
  };
  void look(const py::object& gradient, bool averages, Look& look);

  // Reads and checks everything and adds a slot to the plan, if the parameter has a gradient (`gradient` may be null)
  // or an average to update. Returns true if it added a slot. Throws TypeError or ValueError, with nothing changed, for
  // a tensor that cannot be updated. `keep_alive` and this object keep alive the memory that the slot points to.
  bool read(const BoundGroup& group, const py::object& gradient, const Look& look, Reading reading, StepPlan& plan,
            KeepAlive& keep_alive);

  // Asks for the memory that look() and read() look at.
  CLR_INLINE_MEMBER void prefetch(const TensorInternals& internals, TensorInternals::Stage stage) const {
    internals.prefetch(stage, parameter_.ptr());
    if (stage == TensorInternals::Stage::object) prefetch_line(state_.ptr());
    if (stage != TensorInternals::Stage::gradient) buffer_.prefetch(internals, stage);
    if (extras_) extras_->prefetch(internals, stage);
  }

  // Asks also for the memory of the local tensors of a shard.
  CLR_INLINE_MEMBER void prefetch_shard(const TorchReader& torch, TensorInternals::Stage stage) const {
    if (!shard_) return;
    torch.prefetch_local(stage, parameter_.ptr());
    buffer_.prefetch_local(torch, stage);
  }

  // Throws the RuntimeError for a second gradient before step().
  [[noreturn]] void refuse_second_gradient() const;

  // True if the memory that the last read() pointed to has moved since the read() before.
  bool moved() const { return moved_; }

  // Returns the CUDA device on which the last read() found the parameter, or -1.
  int device() const { return is_cpu(layout_.device) ? -1 : layout_.device.device_id; }

  // True if the last read() pointed the slot to a different buffer, or average, than the read() before.
  bool has_other_buffer() const { return has_other_buffer_; }
  bool has_other_average() const { return has_other_average_; }
  // True if that average holds valid numbers.
  bool average_holds() const { return average_holds_; }

  // True if reads since drop_new_state() made state.
  bool has_new_state() const { return has_new_state_; }

  // Puts the state that read() made into the dict that is bound. Runs no Python.
  void write(KeepAlive& keep_alive);

  int traverse(visitproc visit, void* arg) const;

 private:
  // Returns the parameter's layout without gaps.
  const Layout& dense() const { return dense_ ? *dense_ : layout_; }
  StateOwner owner() const { return {parameter_, dense(), group_, index_}; }
  void forget_new_state();
  void relayout(const DLTensor& view);
  void require_plain(PyObject* tensor, const char* role) const;
  DType gradient_dtype(const py::object& gradient, const DLTensor& view) const;
  void read_gradient(const py::object& gradient, const Look& look, bool writes_unscaled, StepPlan& plan,
                     KeepAlive& keep_alive);
  void read_buffer(const DLTensor* view, bool kept, StateTensor::Content content, Slot& slot);
  bool read_state(StateTensor& tensor, DType dtype, StateTensor::Content content);
  void read_extras(const BoundGroup& group, bool has_gradient, bool averages, StateTensor::Content content, Slot& slot);
  void* dense_copy(const py::object& tensor, const DLTensor& view, bool is_written, StepPlan& plan,
                   KeepAlive& keep_alive) const;

  // Members stand in the order of their use: a step over many small tensors waits for memory, not for arithmetic.
  bool has_new_state_ = false;
  bool seen_ = false;
  bool moved_ = true;
  bool has_other_buffer_ = false, has_other_average_ = false, average_holds_ = false;
  DType dtype_{};
  Density density_{};
  std::uint32_t group_;
  py::object parameter_;
  Layout layout_;  // of the parameter, as last seen
  void* data_ = nullptr;
  std::int64_t size_ = 0;
  std::unique_ptr<Layout> dense_;  // of a parameter with gaps
  WatchedDict state_;
  StateTensor buffer_{kMomentumBuffer};
  std::unique_ptr<Extras> extras_;
  std::unique_ptr<Shard> shard_;
  std::size_t index_, position_;
};

}  // namespace clr
