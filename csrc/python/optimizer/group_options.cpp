#include "python/optimizer/group_options.h"

#include <cmath>

#include "python/torch/group_keys.h"
#include "python/torch/tensor_checks.h"

namespace clr {

namespace {

bool is_text(const py::object& object, const char* text) {
  return PyUnicode_Check(object.ptr()) && PyUnicode_CompareWithASCIIString(object.ptr(), text) == 0;
}

[[noreturn]] void refuse(const GroupReader& group, PyObject* key, const std::string& must) {
  throw py::value_error(group.name_value(key, group.item(key).ptr()) + " must be " + must);
}

constexpr std::uint64_t kAnyCount = UINT64_MAX;
constexpr const char* kCount = "an int from 0 on";

// Throws if a counter that an update must increment is at its maximum.
void require_room(const GroupReader& group, PyObject* key, std::uint64_t count) {
  if (count == kAnyCount) refuse(group, key, "below 2**64 - 1: it is to be counted on");
}

// Reads a number. Refuses a tensor: it could change in place without notice.
double number(const GroupReader& group, PyObject* key) {
  const py::object object = group.item(key);
  if (TorchReader::get().is_tensor(object.ptr())) {
    throw py::type_error(group.name_value(key, object.ptr()) + " must be a number, not a tensor: call .item()");
  }
  return group.number(key, object.ptr());
}

void read_averaging(const GroupReader& group, GroupSettings& settings, GroupProgress& progress) {
  settings.averaging = Averaging::none;
  settings.ema_warmup = group.flag(keys().ema_warmup);
  progress.n_averaged = group.count(keys().n_averaged, kAnyCount, kCount);
  if (!group.item(keys().average).is_none()) {
    if (!is_text(group.item(keys().average), "swa")) refuse(group, keys().average, "'swa' or None");
    settings.averaging = Averaging::at_cycle_ends;
  }
  if (group.item(keys().ema_decay).is_none()) {
    if (settings.ema_warmup) refuse(group, keys().ema_warmup, "False without ema_decay");
    if (settings.averaging != Averaging::none) require_room(group, keys().n_averaged, progress.n_averaged);
    return;
  }
  settings.ema_decay = number(group, keys().ema_decay);
  const bool within = settings.ema_decay >= 0.0 && settings.ema_decay <= 1.0;  // False for NaN
  if (!within) refuse(group, keys().ema_decay, "between 0 and 1");
  if (settings.averaging != Averaging::none) {
    throw py::value_error(group.name_value(keys().ema_decay, group.item(keys().ema_decay).ptr()) +
                          " and average='swa' are two averages: choose one");
  }
  settings.averaging = Averaging::exponential;
  require_room(group, keys().n_averaged, progress.n_averaged);
}

void read_trust(const GroupReader& group, GroupSettings& settings, GroupOptions& options) {
  settings.trust_eps = number(group, keys().trust_eps);
  if (!std::isfinite(settings.trust_eps) || settings.trust_eps < 0.0) {
    refuse(group, keys().trust_eps, "finite and not negative");
  }
  options.trust_min_ndim = group.count(keys().trust_min_ndim, kAnyCount, kCount);
  settings.trust_coefficient = 0.0;
  if (group.item(keys().trust_coefficient).is_none()) return;
  settings.trust_coefficient = number(group, keys().trust_coefficient);
  if (!std::isfinite(settings.trust_coefficient) || settings.trust_coefficient <= 0.0) {
    refuse(group, keys().trust_coefficient, "finite and above 0, or None");
  }
}

void read_storage(const GroupReader& group, GroupSettings& settings, GroupProgress& progress, GroupOptions& options) {
  settings.seed = group.count(keys().seed, kAnyCount, "an int from 0 to 2**64 - 1");
  progress.n_updates = group.count(keys().n_updates, kAnyCount, kCount);
  const py::object dtype = group.item(keys().momentum_dtype);
  for (const DType known : {DType::float32, DType::bfloat16, DType::float16, DType::float64}) {
    if (is_text(dtype, name_of(known))) options.momentum_dtype = known;
  }
  if (!options.momentum_dtype && !dtype.is_none()) {
    refuse(group, keys().momentum_dtype, "None, 'float32', 'bfloat16', 'float16' or 'float64'");
  }
  const py::object rounding = group.item(keys().rounding);
  const bool stochastic = is_text(rounding, "stochastic");
  if (!stochastic && !is_text(rounding, "nearest")) refuse(group, keys().rounding, "'nearest' or 'stochastic'");
  const bool kahan = group.flag(keys().kahan);
  const bool master = group.flag(keys().master_weights);
  if (stochastic + kahan + master > 1) {
    throw py::value_error(group_label(group.index) + std::string(stochastic ? "rounding='stochastic', " : "") +
                          (kahan ? "kahan=True, " : "") + (master ? "master_weights=True, " : "") +
                          "all keep what 16 bits lose: choose one");
  }
  settings.counts_updates = stochastic;
  if (stochastic) require_room(group, keys().n_updates, progress.n_updates);
  options.storage = stochastic ? Storage::stochastic
                    : kahan    ? Storage::split
                    : master   ? Storage::master
                               : Storage::nearest;
}

}  // namespace

GroupOptions read_options(const GroupReader& group, GroupSettings& settings, GroupProgress& progress) {
  GroupOptions options;
  settings.lr_scale = number(group, keys().lr_scale);
  if (!is_valid_lr(settings.lr_scale)) refuse(group, keys().lr_scale, "finite and not negative");
  read_averaging(group, settings, progress);
  read_trust(group, settings, options);
  read_storage(group, settings, progress, options);
  return options;
}

DType GroupOptions::buffer_dtype(DType parameter) const {
  return momentum_dtype ? *momentum_dtype : companion_dtype(parameter, storage);
}

void GroupOptions::require_legal(DType parameter, std::size_t group, std::size_t index) const {
  const bool half = size_of(parameter) == 2;
  const DType buffer = buffer_dtype(parameter);
  const bool legal_buffer = buffer == parameter || (half && buffer == DType::float32) ||
                            (parameter == DType::float32 && buffer == DType::bfloat16);
  if (legal_buffer && (half || storage == Storage::nearest)) return;
  const std::string what = parameter_name(group, index) + ": ";
  if (!half && storage != Storage::nearest) {
    const char* const name = storage == Storage::stochastic ? "rounding='stochastic'"
                             : storage == Storage::split    ? "kahan=True"
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

}  // namespace clr
