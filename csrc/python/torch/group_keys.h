// The keys of a parameter group's dict that steps of optimizers and schedulers use, interned once.
#pragma once

#include <pybind11/pybind11.h>

namespace clr {

struct GroupKeys {
  PyObject* params = PyUnicode_InternFromString("params");
  PyObject* schedule = PyUnicode_InternFromString("schedule");
  PyObject* applied_steps = PyUnicode_InternFromString("applied_steps");
  PyObject* lr = PyUnicode_InternFromString("lr");
  PyObject* momentum = PyUnicode_InternFromString("momentum");
  PyObject* betas = PyUnicode_InternFromString("betas");
  PyObject* lr_scale = PyUnicode_InternFromString("lr_scale");
  PyObject* dampening = PyUnicode_InternFromString("dampening");
  PyObject* weight_decay = PyUnicode_InternFromString("weight_decay");
  PyObject* nesterov = PyUnicode_InternFromString("nesterov");
  PyObject* maximize = PyUnicode_InternFromString("maximize");
  PyObject* skipped_steps = PyUnicode_InternFromString("skipped_steps");
  PyObject* n_averaged = PyUnicode_InternFromString("n_averaged");
  PyObject* n_updates = PyUnicode_InternFromString("n_updates");
  PyObject* ema_decay = PyUnicode_InternFromString("ema_decay");
  PyObject* ema_warmup = PyUnicode_InternFromString("ema_warmup");
  PyObject* average = PyUnicode_InternFromString("average");
  PyObject* trust_coefficient = PyUnicode_InternFromString("trust_coefficient");
  PyObject* trust_eps = PyUnicode_InternFromString("trust_eps");
  PyObject* trust_min_ndim = PyUnicode_InternFromString("trust_min_ndim");
  PyObject* momentum_dtype = PyUnicode_InternFromString("momentum_dtype");
  PyObject* rounding = PyUnicode_InternFromString("rounding");
  PyObject* seed = PyUnicode_InternFromString("seed");
  PyObject* kahan = PyUnicode_InternFromString("kahan");
  PyObject* master_weights = PyUnicode_InternFromString("master_weights");
};

inline const GroupKeys& keys() {
  static const GroupKeys k;
  return k;
}

}  // namespace clr
