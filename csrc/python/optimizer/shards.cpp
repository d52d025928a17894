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
  if (torch.is_dtensor(gradient.ptr()) && torch.spec(gradient.ptr()) == spec) {
    PyObject* const local = torch.local(gradient.ptr());
    if (torch.is_plain(local)) {
      gradient = py::reinterpret_borrow<py::object>(local);
      return is_quiet;
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

// Returns where the numbers lie: the flags, then those of each sum, which are its squares and, for each DTensor in it
// if ratios are taken, the squares of parameter and gradient.
Shards::NumberPlaces Shards::lay_out(const BoundParameters& parameters, bool with_ratios) const {
  NumberPlaces places;
  places.count = kFlagCount;
  for (const std::size_t size : sizes_) {
    places.sums.push_back(places.count);
    places.lengths.push_back(1 + (with_ratios ? 2 * size : 0));
    places.count += places.lengths.back();
  }
  if (!with_ratios) return places;
  std::vector<std::size_t> next = places.sums;
  places.ratios.resize(parameters.size());
  for (std::size_t position = 0; position < parameters.size(); ++position) {
    const BoundParameter::Shard* const shard = parameters[position].shard();
    if (shard == nullptr) continue;
    places.ratios[position] = next[shard->sum] + 1;
    next[shard->sum] += 2;
  }
  return places;
}

// Writes what this process has found, and counts, to its places.
void Shards::put(const Found& found, const BoundParameters& parameters, const std::vector<std::size_t>& slots,
                 const NumberPlaces& places, double* numbers) const {
  const bool counts_copies = sharding_.attr("counts_copies").cast<bool>();
  std::vector<DoubleDouble> sums(sizes_.size(), DoubleDouble{0.0, 0.0});
  for (std::size_t i = 0; i < found.squares.size(); ++i) {
    const std::size_t position = slots[i];
    const BoundParameter::Shard* const shard = parameters[position].shard();
    const bool is_copy = has_flat_ && shard == nullptr && !is_flat_[position];  // all processes have it whole
    if (shard != nullptr ? !shard->counts : is_copy && !counts_copies) continue;
    DoubleDouble& sum = sums[shard == nullptr ? 0 : shard->sum];
    sum = grown(sum, DoubleDouble{found.squares[i], 0.0});
    if (shard == nullptr || places.ratios.empty()) continue;
    double* const ratio = numbers + places.ratios[position];
    ratio[0] = found.slots[i].parameter * found.slots[i].parameter;
    ratio[1] = found.slots[i].gradient * found.slots[i].gradient;
  }
  for (std::size_t sum = 0; sum < sums.size(); ++sum) numbers[places.sums[sum]] = settled(sums[sum]).hi;
  numbers[kNonfinite] = !found.total.finite;
}

// Puts what all processes have found into its place.
void Shards::take(const double* numbers, const NumberPlaces& places, const BoundParameters& parameters,
                  const std::vector<std::size_t>& slots, Found& found) {
  DoubleDouble total = {0.0, 0.0};
  for (const std::size_t sum : places.sums) total = grown(total, DoubleDouble{numbers[sum], 0.0});
  found.total = {settled(total), numbers[kNonfinite] == 0.0};
  if (places.ratios.empty()) return;
  for (std::size_t i = 0; i < found.slots.size(); ++i) {
    if (parameters[slots[i]].shard() == nullptr) continue;
    const double* const ratio = numbers + places.ratios[slots[i]];
    found.slots[i] = {std::sqrt(ratio[0]), std::sqrt(ratio[1])};
  }
}

Shards::Flags Shards::add_up(const BoundParameters& parameters, const BoundGroups& groups,
                             const std::vector<std::size_t>& slots, Found* found, Flags own) {
  if (!is_counted_) count(parameters);
  const NumberPlaces places = lay_out(parameters, trusts(groups));
  double* const before = numbers(places.count);
  before[kRefused] = own.refuses;
  before[kNoProbe] = !own.makes_state;
  if (found != nullptr) put(*found, parameters, slots, places, before);
  sharding_.attr("add_up")(numbers_, places.lengths, static_cast<std::size_t>(kFlagCount));
  const auto* const after = static_cast<double*>(data_of(must_read(numbers_, "numbers of all processes")));
  if (found != nullptr) take(after, places, parameters, slots, *found);
  return {after[kRefused] != 0.0, after[kNoProbe] == 0.0};
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
