#include "python/optimizer/shards.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <utility>

#include "python/torch/group_keys.h"

namespace clr {

namespace {

int device_of(const DLTensor& view) { return view.device.device_type == kDLCPU ? -1 : view.device.device_id; }

py::list all_parameters(const BoundGroups& groups) {
  py::list all;
  for (const auto& group : groups) {
    if (group) all.attr("extend")(py::reinterpret_borrow<py::dict>(group->group())["params"]);
  }
  return all;
}

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
  counts_copies_ = sharding_.attr("counts_copies").cast<bool>();
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
  PyObject* const tensor = parameter.parameter().ptr();
  const bool is_dtensor = torch.is_dtensor(tensor);
  PyObject* const spec = is_dtensor ? torch.spec(tensor) : nullptr;
  bool is_quiet = is_dtensor || torch.is_plain(tensor);
  if (is_dtensor ? !parameter.has_shard(spec) : parameter.shard() != nullptr) {
    parameter.bind_shard(is_dtensor ? sharding_ : py::object());
    is_counted_ = is_quiet = false;
    refresh();
  }
  if (!is_dtensor || !gradient) return is_quiet;
  PyObject* const own = torch.is_dtensor(gradient.ptr()) ? torch.spec(gradient.ptr()) : nullptr;
  PyObject* const local = own == nullptr ? nullptr : torch.local(gradient.ptr());
  if (own != nullptr && parameter.has_gradient_spec(own) && torch.is_plain(local)) {
    gradient = py::reinterpret_borrow<py::object>(local);
    return is_quiet;
  }
  const auto spec_of_gradient = py::reinterpret_borrow<py::object>(own);
  try {
    gradient = local_gradient_(parameter.parameter(), gradient, is_written);
    if (gradient.ptr() == local) parameter.note_gradient_spec(spec_of_gradient);
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

Shards::Sums Shards::sums(bool with_ratios) const {
  Sums all(sizes_.size());
  std::uint32_t next = kFlagCount;
  for (std::size_t i = 1; i <= all.size(); ++i) {
    const std::size_t sum = i % all.size();
    all[sum] = {next, static_cast<std::uint32_t>(1 + (with_ratios ? 2 * sizes_[sum] : 0))};
    next += all[sum].second;
  }
  return all;
}

Shards::Flags Shards::vote(const BoundParameters& parameters, const BoundGroups& groups, Flags own) {
  if (!is_counted_) count(parameters);
  const Sums all = sums(trusts(groups));
  const py::object numbers = sharding_.attr("zeros")(count_of(all), all_parameters(groups));
  std::vector<double> flags(kFlagCount);
  flags[kRefused] = own.refuses;
  flags[kUpdates] = !own.makes_state;
  flags = sharding_.attr("vote")(numbers, all, flags).cast<std::vector<double>>();
  return {flags[kRefused] != 0.0, flags[kUpdates] == 0.0};
}

// Returns a tensor that has held so many numbers, on the device of the slots if there are any; or null.
py::object Shards::tensor_of(std::size_t count, const StepPlan& plan) const {
  for (std::size_t i = tensors_.size(); i-- > 0;) {
    const py::object tensor = tensors_[i];
    const DLTensor view = must_read(tensor, "numbers of all processes");
    const bool is_near = plan.slots.empty() || plan.slots.front().device == device_of(view);
    if (is_near && static_cast<std::size_t>(view.shape[0]) == count) return tensor;
  }
  return {};
}

bool Shards::lay_out(const BoundParameters& parameters, const BoundGroups& groups,
                     const std::vector<std::size_t>& slots, StepPlan& plan) {
  const bool was_counted = is_counted_;
  if (!was_counted) count(parameters);
  const bool with_ratios = trusts(groups);
  sums_ = sums(with_ratios);
  SharedNumbers& shared = plan.shared;
  shared.count = count_of(sums_);
  tensor_ = tensor_of(shared.count, plan);
  const bool had_tensor = bool(tensor_);
  if (!had_tensor) {
    tensor_ =
        sharding_.attr("zeros")(shared.count, slots.empty() ? py::object(all_parameters(groups))
                                                            : py::make_tuple(parameters[slots.front()].parameter()));
    tensors_.append(tensor_);
  }
  find_numbers(shared);
  shared.sums.clear();
  for (const auto& [place, length] : sums_) shared.sums.push_back(place);
  std::vector<std::uint32_t> next = shared.sums;
  std::vector<std::uint32_t> ratios(with_ratios ? parameters.size() : 0);
  for (std::size_t position = 0; position < ratios.size(); ++position) {
    const BoundParameter::Shard* const shard = parameters[position].shard();
    if (shard == nullptr) continue;
    ratios[position] = next[shard->sum] + 1;
    next[shard->sum] += 2;
  }
  shared.slots.clear();
  for (const std::size_t position : slots) {
    const BoundParameter::Shard* const shard = parameters[position].shard();
    const bool is_copy = has_flat_ && shard == nullptr && !is_flat_[position];  // all processes have it whole
    const bool counts = shard != nullptr ? shard->counts : counts_copies_ || !is_copy;
    shared.slots.push_back({counts ? shared.sums[shard == nullptr ? 0 : shard->sum] : 0,
                            with_ratios && shard != nullptr ? ratios[position] : 0});
  }
  return was_counted && had_tensor;
}

void Shards::add_up(StepPlan& plan) {
  sharding_.attr("add_up")(tensor_, sums_, static_cast<std::size_t>(kFlagCount));
  find_numbers(plan.shared);
}

void Shards::find_numbers(SharedNumbers& shared) const {
  const DLTensor view = must_read(tensor_, "numbers of all processes");
  shared.numbers = static_cast<double*>(data_of(view));
  shared.device = device_of(view);
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
