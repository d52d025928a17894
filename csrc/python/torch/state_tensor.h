// A tensor in optimizer.state[parameter], in the parameter's layout.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "python/torch/tensor_checks.h"
#include "python/torch/watched_dict.h"

namespace clr {

// The parameter that a state tensor belongs to.
struct StateOwner {
  const py::object& parameter;
  const Layout& dense;  // the parameter's layout without gaps
  std::size_t group, index;

  std::string name() const { return parameter_name(group, index); }
};

// The keys of the tensors that steps keep in optimizer.state[parameter].
constexpr const char *kMomentumBuffer = "momentum_buffer", *kAverage = "average", *kCompensation = "compensation",
                     *kMasterWeight = "master_weight";
constexpr const char* kStateTensors[] = {kMomentumBuffer, kAverage, kCompensation, kMasterWeight};

class StateTensor {
 public:
  explicit StateTensor(const char* key) : key_(PyUnicode_InternFromString(key)) {}

  // Reads the memory of the tensor in `state`, which may be null, into `view`, if that is the tensor known from the
  // last read(). Returns false, with nothing read, if it is another tensor.
  bool look(const WatchedDict& state, DLTensor& view);

  // Points data() into the tensor in `state`, or into a copy of it if its layout is not the parameter's. The tensor's
  // memory is read anew each time, because it can move while the object stays in its place. `view` is the result of
  // look(), or null if look() returned false; read() then reads the memory itself. Returns false if the state holds no
  // such tensor; data() is then the memory that make() made in this step, or null. Throws TypeError or ValueError for a
  // tensor that does not fit.
  bool read(const WatchedDict& state, const DLTensor* view, DType dtype, const StateOwner& owner);

  enum class Content { anything, zeros, parameter };
  // Makes a new tensor, unless this step has made one already. write() puts it into the state.
  void make(DType dtype, const StateOwner& owner, Content content);

  void* data() const { return data_; }
  // True if the last read() or make() gave a different tensor, or different memory, than the call before.
  bool has_moved() const { return has_moved_; }
  bool is_new() const { return bool(fresh_); }

  // Puts a tensor that read() or make() made into the state. Runs no Python: `replaced` takes the object that stood
  // there.
  void write(const WatchedDict& state, std::vector<py::object>& replaced);

  // drop_new() releases a tensor that was made and not written, forget() everything known.
  void drop_new() { fresh_ = converted_ = py::object(); }
  void forget();

  // Asks for the memory that the next read() looks at.
  CLR_INLINE_MEMBER void prefetch(const TensorInternals& internals, TensorInternals::Stage stage) const {
    internals.prefetch(stage, tensor_.ptr());
  }

  // The same for the local tensor of a DTensor.
  CLR_INLINE_MEMBER void prefetch_local(const TorchReader& torch, TensorInternals::Stage stage) const {
    torch.prefetch_local(stage, tensor_.ptr());
  }

  int traverse(visitproc visit, void* arg) const {
    Py_VISIT(tensor_.ptr());
    return 0;
  }

 private:
  PyObject* found_in(const WatchedDict& state);
  bool accept(const DLTensor& view, DType dtype, const StateOwner& owner) const;
  void adopt(py::object tensor, const DLTensor& view, DType dtype, const StateOwner& owner);
  void take_fresh(const StateOwner& owner);

  py::object tensor_;  // the object in the state, if data_ points into it
  void* data_ = nullptr;
  std::uint64_t version_ = 0;       // of the dict, when tensor_ was found in it
  std::unique_ptr<Layout> layout_;  // of tensor_, if it is not exactly the parameter's
  bool has_moved_ = false;
  py::object fresh_;      // a new tensor that is not yet in the state
  py::object converted_;  // the object in the state that fresh_ is a copy of
  PyObject* key_;         // interned, kept for ever
};

}  // namespace clr
