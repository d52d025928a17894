#include "python/optimizer/group_settings.h"

#include <cmath>

#include "core/average.h"
#include "core/random.h"
#include "python/torch/tensor_checks.h"

namespace clr {

namespace {

struct TailKeys {
  PyObject* ema_decay = PyUnicode_InternFromString("ema_decay");
  PyObject* ema_warmup = PyUnicode_InternFromString("ema_warmup");
  PyObject* average = PyUnicode_InternFromString("average");
  PyObject* n_averaged = PyUnicode_InternFromString("n_averaged");
  PyObject* n_updates = PyUnicode_InternFromString("n_updates");
  PyObject* trust_coefficient = PyUnicode_InternFromString("trust_coefficient");
  PyObject* trust_eps = PyUnicode_InternFromString("trust_eps");
  PyObject* trust_min_ndim = PyUnicode_InternFromString("trust_min_ndim");
  PyObject* momentum_dtype = PyUnicode_InternFromString("momentum_dtype");
  PyObject* rounding = PyUnicode_InternFromString("rounding");
  PyObject* seed = PyUnicode_InternFromString("seed");
  PyObject* kahan = PyUnicode_InternFromString("kahan");
  PyObject* master_weights = PyUnicode_InternFromString("master_weights");
};

const TailKeys& tail_keys() {
  static const TailKeys k;
  return k;
}

bool is_text(const py::object& object, const char* text) {
  return PyUnicode_Check(object.ptr()) && PyUnicode_CompareWithASCIIString(object.ptr(), text) == 0;
}

[[noreturn]] void refuse(const GroupReader& group, PyObject* key, const std::string& must) {
  throw py::value_error(group.name_value(key, group.item(key).ptr()) + " must be " + must);
}

constexpr std::uint64_t kAnyCount = UINT64_MAX;
constexpr const char* kCount = "an int from 0 on";

// A counter that an update would count on.
void require_room(const GroupReader& group, PyObject* key, std::uint64_t count) {
  if (count == kAnyCount) refuse(group, key, "below 2**64 - 1: it is to be counted on");
}

}  // namespace

// A tensor could change in place, which nobody would see.
double GroupTail::number(const GroupReader& group, PyObject* key) const {
  const py::object object = group.item(key);
  if (TorchReader::get().is_tensor(object.ptr())) {
    throw py::type_error(group.name_value(key, object.ptr()) + " must be a number, not a tensor: call .item()");
  }
  return group.number(key, object.ptr());
}

void GroupTail::read(const GroupReader& group) {
  read_averaging(group);
  read_trust(group);
  read_storage(group);
}

void GroupTail::read_averaging(const GroupReader& group) {
  averaging_ = Averaging::none;
  warm_up_ = group.flag(tail_keys().ema_warmup);
  n_averaged_ = group.count(tail_keys().n_averaged, kAnyCount, kCount);
  if (!group.item(tail_keys().average).is_none()) {
    if (!is_text(group.item(tail_keys().average), "swa")) refuse(group, tail_keys().average, "'swa' or None");
    averaging_ = Averaging::at_cycle_ends;
  }
  if (group.item(tail_keys().ema_decay).is_none()) {
    if (warm_up_) refuse(group, tail_keys().ema_warmup, "False without ema_decay");
    if (averaging_ != Averaging::none) require_room(group, tail_keys().n_averaged, n_averaged_);
    return;
  }
  decay_ = number(group, tail_keys().ema_decay);
  const bool within = decay_ >= 0.0 && decay_ <= 1.0;  // NaN is not
  if (!within) refuse(group, tail_keys().ema_decay, "between 0 and 1");
  if (averaging_ != Averaging::none) {
    throw py::value_error(group.name_value(tail_keys().ema_decay, group.item(tail_keys().ema_decay).ptr()) +
                          " and average='swa' are two averages: choose one");
  }
  averaging_ = Averaging::exponential;
  require_room(group, tail_keys().n_averaged, n_averaged_);
}

void GroupTail::read_trust(const GroupReader& group) {
  trust_eps_ = number(group, tail_keys().trust_eps);
  if (!std::isfinite(trust_eps_) || trust_eps_ < 0.0) refuse(group, tail_keys().trust_eps, "finite and not negative");
  trust_min_ndim_ = group.count(tail_keys().trust_min_ndim, kAnyCount, kCount);
  trust_coefficient_ = 0.0;
  if (group.item(tail_keys().trust_coefficient).is_none()) return;
  trust_coefficient_ = number(group, tail_keys().trust_coefficient);
  if (!std::isfinite(trust_coefficient_) || trust_coefficient_ <= 0.0) {
    refuse(group, tail_keys().trust_coefficient, "finite and above 0, or None");
  }
}

void GroupTail::read_storage(const GroupReader& group) {
  seed_ = group.count(tail_keys().seed, kAnyCount, "an int from 0 to 2**64 - 1");
  n_updates_ = group.count(tail_keys().n_updates, kAnyCount, kCount);
  const py::object dtype = group.item(tail_keys().momentum_dtype);
  momentum_dtype_.reset();
  if (is_text(dtype, "float32")) momentum_dtype_ = DType::float32;
  if (is_text(dtype, "bfloat16")) momentum_dtype_ = DType::bfloat16;
  if (is_text(dtype, "float16")) momentum_dtype_ = DType::float16;
  if (is_text(dtype, "float64")) momentum_dtype_ = DType::float64;
  if (!momentum_dtype_ && !dtype.is_none()) {
    refuse(group, tail_keys().momentum_dtype, "None, 'float32', 'bfloat16', 'float16' or 'float64'");
  }
  const py::object rounding = group.item(tail_keys().rounding);
  const bool stochastic = is_text(rounding, "stochastic");
  if (!stochastic && !is_text(rounding, "nearest")) refuse(group, tail_keys().rounding, "'nearest' or 'stochastic'");
  const bool kahan = group.flag(tail_keys().kahan);
  const bool master = group.flag(tail_keys().master_weights);
  if (stochastic + kahan + master > 1) {
    throw py::value_error(group_name(group.index) + std::string(stochastic ? "rounding='stochastic', " : "") +
                          (kahan ? "kahan=True, " : "") + (master ? "master_weights=True, " : "") +
                          "all keep what 16 bits lose: choose one");
  }
  if (stochastic) require_room(group, tail_keys().n_updates, n_updates_);
  storage_ = stochastic ? Storage::stochastic : kahan ? Storage::split : master ? Storage::master : Storage::nearest;
}

DType GroupTail::buffer_dtype(DType parameter) const {
  if (momentum_dtype_) return *momentum_dtype_;
  return companion_dtype(parameter, storage_);
}

void GroupTail::require_legal(DType parameter, std::size_t group, std::size_t index) const {
  const bool half = size_of(parameter) == 2;
  const DType buffer = buffer_dtype(parameter);
  const bool legal_buffer = buffer == parameter || (half && buffer == DType::float32) ||
                            (parameter == DType::float32 && buffer == DType::bfloat16);
  if (legal_buffer && (half || storage_ == Storage::nearest)) return;
  const std::string what = parameter_name(group, index) + ": ";
  if (!half && storage_ != Storage::nearest) {
    const char* const name = storage_ == Storage::stochastic ? "rounding='stochastic'"
                             : storage_ == Storage::split    ? "kahan=True"
                                                             : "master_weights=True";
    throw py::value_error(what + name + " is for bfloat16 and float16 parameters, not for dtype=torch." +
                          name_of(parameter) + ": leave it out for this group");
  }
  const char* const choices = half                          ? "None, 'float32' or its own"
                              : parameter == DType::float32 ? "None, 'float32' or 'bfloat16'"
                                                            : "None or its own";
  throw py::value_error(what + "momentum_dtype='" + name_of(buffer) + "' with dtype=torch." + name_of(parameter) +
                        " must be " + choices);
}

std::uint64_t GroupTail::random_key(std::uint64_t parameter) const {
  return clr::random_key(seed_, n_updates_, parameter);
}

void GroupTail::prepare_state(GroupValues& values) {
  counts_average_ = counts_update_ = false;
  values.averages = averaging_ != Averaging::none;
}

void GroupTail::prepare(bool at_cycle_end, GroupValues& values) {
  counts_average_ = averaging_ == Averaging::exponential || (averaging_ == Averaging::at_cycle_ends && at_cycle_end);
  counts_update_ = storage_ == Storage::stochastic;
  if (counts_average_) next_n_averaged_ = py::int_(n_averaged_ + 1);
  if (counts_update_) next_n_updates_ = py::int_(n_updates_ + 1);
  values.averages = counts_average_;
  values.trust_coefficient = trust_coefficient_;
  values.trust_eps = trust_eps_;
  if (!values.averages) return;
  values.average_weight =
      averaging_ == Averaging::at_cycle_ends ? mean_weight(n_averaged_) : ema_weight(decay_, warm_up_, n_averaged_);
}

void GroupTail::describe(GroupSettings& settings) const {
  settings.averages = averaging_ == Averaging::exponential;
  settings.ema_decay = decay_;
  settings.ema_warmup = warm_up_;
  settings.trust_coefficient = trust_coefficient_;
  settings.trust_eps = trust_eps_;
  settings.seed = seed_;
  settings.counts_updates = storage_ == Storage::stochastic;
}

void GroupTail::describe(GroupProgress& progress) const {
  progress.n_averaged = n_averaged_;
  progress.n_updates = n_updates_;
  if (averaging_ == Averaging::exponential) progress.average_weight = ema_weight(decay_, warm_up_, n_averaged_);
}

void GroupTail::take(const GroupProgress& counted, PyObject* group) {
  if (counted.n_averaged != n_averaged_) {
    n_averaged_ = counted.n_averaged;
    set_group_item(group, tail_keys().n_averaged, py::int_(n_averaged_));
  }
  if (counted.n_updates != n_updates_) {
    n_updates_ = counted.n_updates;
    set_group_item(group, tail_keys().n_updates, py::int_(n_updates_));
  }
}

void GroupTail::write(PyObject* group, std::vector<py::object>& replaced) {
  if (counts_average_) {
    ++n_averaged_;
    replace_group_item(group, tail_keys().n_averaged, next_n_averaged_, replaced);
  }
  if (counts_update_) {
    ++n_updates_;
    replace_group_item(group, tail_keys().n_updates, next_n_updates_, replaced);
  }
}

}  // namespace clr
