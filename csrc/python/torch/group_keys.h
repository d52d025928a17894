// The keys of a parameter group's dict that a step uses, interned once.
#pragma once

#include <pybind11/pybind11.h>

namespace clr {

struct GroupKeys {
  PyObject* params = PyUnicode_InternFromString("params");
  PyObject* schedule = PyUnicode_InternFromString("schedule");
  PyObject* applied_steps = PyUnicode_InternFromString("applied_steps");
  PyObject* lr = PyUnicode_InternFromString("lr");
  PyObject* momentum = PyUnicode_InternFromString("momentum");
  PyObject* dampening = PyUnicode_InternFromString("dampening");
  PyObject* weight_decay = PyUnicode_InternFromString("weight_decay");
  PyObject* nesterov = PyUnicode_InternFromString("nesterov");
  PyObject* maximize = PyUnicode_InternFromString("maximize");
  PyObject* skipped_steps = PyUnicode_InternFromString("skipped_steps");
};

inline const GroupKeys& keys() {
  static const GroupKeys k;
  return k;
}

}  // namespace clr
