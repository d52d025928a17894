#include "python/optimizer/shards.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "python/torch/group_keys.h"

namespace clr {

namespace {

// The places of the flags among the numbers.
enum : std::size_t { kNonfinite, kRefused, kNoProbe, kFlagCount };

bool is_flat(PyObject* parameter) {
  return PyObject_HasAttrString(parameter, "_fsdp_flattened") != 0 &&
         py::handle(parameter).attr("_fsdp_flattened").cast<bool>();
}

}  // namespace

Shards::Shards(py::object sharding)
    : sharding_(std::move(sharding)),
      local_gradient_(py::module_::import("clr_native.sgd.sharding").attr("local_gradient")) {}

void Shards::refresh() {
  is_shared_ = sharding_.attr("is_shared").cast<bool>();
  sizes_ = sharding_.attr("sizes").cast<std::vector<std::size_t>>();
}

void Shards::note(const py::dict& group) {
  bool has_dtensors = false;
  for (const py::handle parameter : py::list(group["params"])) {
    if (!TorchReader::get().is_dtensor(parameter.ptr())) continue;
    sharding_.attr("note")(py::make_tuple(parameter));
    has_dtensors = true;
  }
  if (has_dtensors) refresh();
}

void Shards::note_all(const BoundGroups& groups) {
  sharding_.attr("count")(py::list());
  refresh();
  for (const auto& group : groups) note(py::reinterpret_borrow<py::dict>(group->group()));
}

void Shards::bind(BoundParameters& parameters) {
  has_flat_ = false;
  is_flat_.clear();
  for (BoundParameter& parameter : parameters) {
    PyObject* const tensor = parameter.parameter().ptr();
    parameter.bind_shard(TorchReader::get().is_dtensor(tensor) ? sharding_ : py::object());
    is_flat_.push_back(is_flat(tensor));
    has_flat_ = has_flat_ || is_flat_.back();
  }
  count(parameters);
}

void Shards::count(const BoundParameters& parameters) {
  std::vector<std::uint32_t> sums;
  for (std::size_t position = 0; position < parameters.size(); ++position) {
    if (const BoundParameter::Shard* const shard = parameters[position].shard()) sums.push_back(shard->sum);
  }
  sharding_.attr("count")(sums);
  is_counted_ = true;
  refresh();
}

bool Shards::localise(BoundParameter& parameter, py::object& gradient, bool is_written) {
  const TorchReader& torch = TorchReader::get();
  const bool is_dtensor = torch.is_dtensor(parameter.parameter().ptr());
  PyObject* const spec = is_dtensor ? torch.spec(parameter.parameter().ptr()) : nullptr;
  if (is_dtensor ? !parameter.has_shard(spec) : parameter.shard() != nullptr) {
    parameter.bind_shard(is_dtensor ? sharding_ : py::object());
    is_counted_ = false;
    refresh();
    if (is_dtensor) {
      localise(parameter, gradient, is_written);
      return false;  // finding out where it lies has run Python
    }
  }
  if (!is_dtensor) return torch.is_plain(parameter.parameter().ptr());
  if (!gradient) return true;
  if (torch.is_dtensor(gradient.ptr()) && torch.spec(gradient.ptr()) == spec) {
    PyObject* const local = torch.local(gradient.ptr());
    if (torch.is_plain(local)) {
      gradient = py::reinterpret_borrow<py::object>(local);
      return true;
    }
  }
  try {
    gradient = local_gradient_(parameter.parameter(), gradient, is_written);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
    throw py::type_error(parameter.name() + ", gradient: " + py::str(error.value()).cast<std::string>());
  }
  return false;
}

bool Shards::trusts(const BoundGroups& groups) {
  // Looks into the dicts: a step that is refused may not have read them.
  return std::any_of(groups.begin(), groups.end(), [](const auto& group) {
    PyObject* const coefficient = group ? PyDict_GetItemWithError(group->group(), keys().trust_coefficient) : nullptr;
    if (coefficient == nullptr && PyErr_Occurred()) throw py::error_already_set();
    return coefficient != nullptr && coefficient != Py_None;
  });
}

bool Shards::must_add_up(const BoundGroups& groups, const GradientOptions& options, const StepRequest& request) const {
  return options.max_norm != 0.0 || looks_for_infinity(options, request) || trusts(groups);
}

double* Shards::numbers(std::size_t count) {
  const bool fits = numbers_ && py::len(numbers_) == count;
  const py::module_ torch = py::module_::import("torch");
  if (!fits) numbers_ = torch.attr("zeros")(count, py::arg("dtype") = torch.attr("float64"), py::arg("device") = "cpu");
  auto* const at = static_cast<double*>(data_of(must_read(numbers_, "numbers of all processes")));
  std::fill_n(at, count, 0.0);
  return at;
}

Shards::Flags Shards::add_up(const BoundParameters& parameters, const BoundGroups& groups,
                             const std::vector<std::size_t>& slots, Found* found, Flags own) {
  if (!is_counted_) count(parameters);
  const bool with_ratios = trusts(groups);
  // Numbers of each sum: its squares, then, for each DTensor in it, those of parameter and gradient.
  std::vector<std::size_t> lengths, starts;
  std::size_t count = kFlagCount;
  for (const std::size_t size : sizes_) {
    starts.push_back(count);
    lengths.push_back(1 + (with_ratios ? 2 * size : 0));
    count += lengths.back();
  }
  double* at = numbers(count);
  at[kNonfinite] = found != nullptr && !found->total.finite;
  at[kRefused] = own.refuses;
  at[kNoProbe] = !own.makes_state;
  std::vector<std::size_t> ratios(parameters.size());  // by position: where a DTensor's two numbers are
  if (with_ratios) {
    std::vector<std::size_t> next = starts;
    for (std::size_t position = 0; position < parameters.size(); ++position) {
      const BoundParameter::Shard* const shard = parameters[position].shard();
      if (shard == nullptr) continue;
      ratios[position] = next[shard->sum] + 1;
      next[shard->sum] += 2;
    }
  }
  const bool counts_copies = sharding_.attr("counts_copies").cast<bool>();
  if (found != nullptr) {
    std::vector<DoubleDouble> squares(sizes_.size(), DoubleDouble{0.0, 0.0});
    for (std::size_t i = 0; i < found->squares.size(); ++i) {
      const BoundParameter::Shard* const shard = parameters[slots[i]].shard();
      const std::size_t sum = shard == nullptr ? 0 : shard->sum;
      const bool is_copy = has_flat_ && shard == nullptr && !is_flat_[slots[i]];  // all processes have it whole
      if (shard != nullptr ? !shard->counts : is_copy && !counts_copies) continue;
      squares[sum] = grown(squares[sum], DoubleDouble{found->squares[i], 0.0});
      if (!with_ratios || shard == nullptr || i >= found->slots.size()) continue;
      const SlotNorms& norms = found->slots[i];
      at[ratios[slots[i]]] = norms.parameter * norms.parameter;
      at[ratios[slots[i]] + 1] = norms.gradient * norms.gradient;
    }
    for (std::size_t sum = 0; sum < squares.size(); ++sum) at[starts[sum]] = settled(squares[sum]).hi;
  }
  sharding_.attr("add_up")(numbers_, lengths, static_cast<std::size_t>(kFlagCount));
  at = static_cast<double*>(data_of(must_read(numbers_, "numbers of all processes")));
  if (found != nullptr) {
    DoubleDouble total = {0.0, 0.0};
    for (const std::size_t start : starts) total = grown(total, DoubleDouble{at[start], 0.0});
    found->total = {settled(total), at[kNonfinite] == 0.0};
    for (std::size_t i = 0; with_ratios && i < found->slots.size(); ++i) {
      if (parameters[slots[i]].shard() == nullptr) continue;
      const double* const sums = at + ratios[slots[i]];
      found->slots[i] = {std::sqrt(sums[0]), std::sqrt(sums[1])};
    }
  }
  return {at[kRefused] != 0.0, at[kNoProbe] == 0.0};
}

void Shards::refuse_flat(const BoundGroups& groups, const GradientOptions& options, const StepRequest& request) const {
  const std::string flat = " with parameters of FullyShardedDataParallel, ";
  if (trusts(groups)) {
    throw std::runtime_error("trust_coefficient" + flat +
                             "each of which holds pieces of several tensors, has no meaning: use fully_shard()");
  }
  if (!sharding_.attr("process_group").is_none()) return;
  const char* const rule = options.max_norm != 0.0  ? "max_grad_norm"
                           : options.skip_nonfinite ? "skip_nonfinite"
                           : !request.found_inf     ? "clr_native.GradScaler"
                                                    : nullptr;
  if (rule == nullptr) return;
  throw std::runtime_error(rule + flat +
                           "of which each process sees its own part, needs process_group=: pass the module's "
                           "process_group, or that of all processes");
}

}  // namespace clr
