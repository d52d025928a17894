// A tensor in optimizer.state[parameter], in the parameter's layout.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "python/tensor_checks.h"

namespace clr {

// The parameter that it belongs to.
struct StateOwner {
  const py::object& parameter;
  const Layout& layout;
  Density density;
  std::size_t group, index;

  std::string name() const { return parameter_name(group, index); }
};

class StateTensor {
 public:
  explicit StateTensor(const char* key) : key_(PyUnicode_InternFromString(key)) {}

  // Is memory known, and, is_in(), of the very object that stands in the state? Then data() holds. Giving that tensor
  // other memory is not seen.
  bool is_known() const { return bool(tensor_); }
  bool is_in(PyObject* state) const { return tensor_ && found_in(state) == tensor_.ptr(); }

  // Points data() into the tensor in `state`, a dict or null, or into a copy of it where its layout is not the
  // parameter's. Returns false, with data() null, if there is none. Throws TypeError or ValueError for a tensor that
  // does not fit.
  bool find(PyObject* state, DType dtype, const StateOwner& owner);

  enum class Content { none, zeros, parameter };
  // Makes a new one, which write() will put into the state. `none`: it holds anything.
  void make(DType dtype, const StateOwner& owner, Content content);

  void* data() const { return data_; }
  bool is_new() const { return bool(fresh_); }

  // Puts a tensor that find() or make() made into the state.
  void write(const py::dict& state);

  // Lets go of a tensor that was made and not written, or of everything known.
  void drop_new() { fresh_ = py::object(); }
  void forget() { tensor_ = py::object(); }

  int traverse(visitproc visit, void* arg) const {
    Py_VISIT(tensor_.ptr());
    return 0;
  }

 private:
  PyObject* found_in(PyObject* state) const;
  void adopt(py::object tensor, DType dtype, const StateOwner& owner);

  py::object tensor_;  // the object in the state, if data_ points into it
  void* data_ = nullptr;
  py::object fresh_;  // not yet in the state
  PyObject* key_;     // interned, kept for ever
};

}  // namespace clr
