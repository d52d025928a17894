#include "python/optimizer/parameter.h"

#include <pybind11/stl.h>

#include <tuple>

#include "core/random.h"

namespace clr {

BoundParameter::BoundParameter(py::object parameter, std::uint32_t group, std::size_t index, std::size_t position)
    : group_(group), parameter_(std::move(parameter)), index_(index), position_(position) {}

void BoundParameter::bind_shard(const py::object& sharding) {
  shard_.reset();
  if (!sharding) return;
  const auto spec = py::reinterpret_borrow<py::object>(TorchReader::get().spec(parameter_.ptr()));
  try {
    const py::object found = sharding.attr("shard_of")(parameter_), places = found.attr("places");
    auto shard = std::make_unique<Shard>();
    shard->spec = spec;
    shard->sum = found.attr("sum").cast<std::uint32_t>();
    shard->counts = found.attr("counts").cast<bool>();
    shard->has_places = !places.is_none();
    if (shard->has_places) {
      const auto [first, run, stride] = places.cast<std::tuple<std::int64_t, std::int64_t, std::int64_t>>();
      shard->places = {first, run, stride};
    }
    shard_ = std::move(shard);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_ValueError)) throw;
    throw py::value_error(name() + ": " + py::str(error.value()).cast<std::string>());
  }
}

void BoundParameter::relayout(const DLTensor& view) {
  const Layout layout(view);
  require_device(layout.device, parameter_, name());
  const DType dtype = dtype_of(layout, parameter_, name());
  const Density density = require_writable(layout, parameter_, name());
  dense_.reset();
  if (density == Density::gapped) {
    const TorchReader& torch = TorchReader::get();
    dense_ = std::make_unique<Layout>(must_read(torch.empty_like(torch.local(parameter_.ptr())), name()));
  }
  layout_ = layout;
  dtype_ = dtype;
  density_ = density;
  size_ = layout.size();
  buffer_.forget();  // the next read() checks the buffer anew
  if (extras_) *extras_ = Extras();
  seen_ = true;
}

void BoundParameter::require_plain(PyObject* tensor, const char* role) const {
  if (TorchReader::get().is_negative(tensor)) throw py::type_error(name() + role + ": " + why_unreadable(tensor));
}

// Returns the dtype of a gradient. Throws if the kernels cannot read it beside the parameter's.
DType BoundParameter::gradient_dtype(const py::object& gradient, const DLTensor& view) const {
  const std::optional<DType> dtype = known_dtype(view.dtype);
  if (dtype && reads_gradient(dtype_, *dtype)) return *dtype;
  throw py::type_error(name() + ", gradient: " + described(gradient, "dtype") + " must be the parameter's, " +
                       described(parameter_, "dtype") + ", or float32, bfloat16 or float16");
}

// Points the slot to the gradient, or to a copy of it in the parameter's layout.
void BoundParameter::read_gradient(const py::object& gradient, const Look& look, bool writes_unscaled, StepPlan& plan,
                                   KeepAlive& keep_alive) {
  const TorchReader& torch = TorchReader::get();
  if (!look.has_gradient) throw py::type_error(name() + ", gradient: " + why_unreadable(gradient));
  if (!torch.is_plain(gradient.ptr()) && torch.is_dtensor(gradient.ptr())) {
    throw py::type_error(name() + ", gradient: type=DTensor must be the parameter's, " +
                         Py_TYPE(parameter_.ptr())->tp_name);
  }
  const DLTensor& view = look.gradient;
  // Checks the gradient at every step: autograd itself makes lazy negatives, and remembering the answer would mean to
  // keep the gradient alive.
  require_plain(gradient.ptr(), ", gradient");
  Slot& slot = plan.slots.back();
  const bool dense = density_ == Density::dense && is_exactly(layout_, view);
  if (!dense) {
    slot.gradient_dtype = gradient_dtype(gradient, view);
    require_alike(layout_, slot.gradient_dtype, view, gradient, torch.local(parameter_.ptr()), name() + ", gradient");
  }
  if (dense || same_strides(this->dense(), view)) {
    slot.gradient = data_of(view);
    slot.unscaled = writes_unscaled ? data_of(view) : nullptr;
    return;
  }
  if (writes_unscaled) {
    const Layout layout(view);
    require_writable(layout, gradient, name() + ", gradient to unscale");
    plan.copied.push_back({data_of(view), static_cast<const char*>(data_of(view)) + layout.span_bytes()});
  }
  void* const copy = dense_copy(gradient, view, writes_unscaled, plan, keep_alive);
  slot.gradient = copy;
  if (writes_unscaled) slot.unscaled = copy;
}

// Makes a copy of a tensor in the parameter's layout without gaps, for the slot that was added last.
void* BoundParameter::dense_copy(const py::object& tensor, const DLTensor& view, bool is_written, StepPlan& plan,
                                 KeepAlive& keep_alive) const {
  const auto use = is_written ? StridedCopy::Use::read_and_written : StridedCopy::Use::read;
  if (is_cpu(view.device)) {
    plan.copies.push_back(strided_copy(plan.slots.size() - 1, view, dense(), use));
    return plan.copies.back().data();
  }
  const TorchReader& torch = TorchReader::get();
  keep_alive.device_copies.emplace_back(py::reinterpret_borrow<py::object>(torch.local(tensor.ptr())),
                                        torch.local(parameter_.ptr()), use);
  return keep_alive.device_copies.back().data();
}

// Points the slot to its momentum buffer, if there is one or one is to be kept.
void BoundParameter::read_buffer(const DLTensor* view, bool kept, StateTensor::Content content, Slot& slot) {
  slot.first = !buffer_.read(state_, view, slot.buffer_dtype, owner());
  if (slot.first && kept) buffer_.make(slot.buffer_dtype, owner(), content);
  has_other_buffer_ = buffer_.has_moved();
  has_new_state_ = has_new_state_ || buffer_.is_new();
  moved_ = moved_ || has_other_buffer_;
  slot.buffer = buffer_.data();
}

// Finds the tensor in the state, or makes it. Returns true if it holds valid numbers.
bool BoundParameter::read_state(StateTensor& tensor, DType dtype, StateTensor::Content content) {
  const bool found = tensor.read(state_, nullptr, dtype, owner());
  if (!found) tensor.make(dtype, owner(), content);
  has_new_state_ = has_new_state_ || tensor.is_new();
  moved_ = moved_ || tensor.has_moved();
  return found || content != StateTensor::Content::anything;
}

// Reads everything that a slot has beyond parameter, gradient and buffer.
void BoundParameter::read_extras(const BoundGroup& group, bool has_gradient, bool averages,
                                 StateTensor::Content content, Slot& slot) {
  const GroupSettings& settings = group.settings();
  const GroupProgress& progress = group.progress();
  slot.storage = group.options().storage;
  slot.trusted = has_gradient && settings.trust_coefficient != 0.0 && layout_.ndim() >= group.options().trust_min_ndim;
  slot.random_key = slot.storage == Storage::stochastic ? random_key(settings.seed, progress.n_updates, position_) : 0;
  if (slot.storage == Storage::stochastic && shard_) {
    if (!shard_->has_places) {
      throw py::type_error(name() + ": rounding='stochastic' with placements=" +
                           py::str(parameter_.attr("placements")).cast<std::string>() +
                           " is not supported: shard one dimension behind the first, and leave its memory in order");
    }
    slot.places = shard_->places;
  }
  const bool splits = slot.storage == Storage::split && has_gradient;
  const bool masters = slot.storage == Storage::master;
  if (!extras_ && (averages || splits || masters)) extras_ = std::make_unique<Extras>();
  const DType wide = companion_dtype(dtype_, slot.storage);
  if (splits) {
    read_state(extras_->compensation, wide, StateTensor::Content::zeros);
    slot.companion = extras_->compensation.data();
  }
  if (masters) {
    read_state(extras_->master_weight, wide, StateTensor::Content::parameter);
    slot.companion = extras_->master_weight.data();
  }
  if (averages) {
    average_holds_ = read_state(extras_->average, wide, content);
    has_other_average_ = extras_->average.has_moved();
    slot.first_average = !average_holds_ || progress.n_averaged == 0;
    slot.average = extras_->average.data();
  }
}

void BoundParameter::look(const py::object& gradient, bool averages, Look& look) {
  const TorchReader& torch = TorchReader::get();
  look.has_gradient = look.has_buffer = false;
  look.has_parameter = false;
  if (!gradient && !averages) return;
  look.has_parameter = torch.read(parameter_.ptr(), look.parameter);
  if (!gradient) return;
  look.has_gradient = torch.read(gradient.ptr(), look.gradient);
  look.has_buffer = buffer_.look(state_, look.buffer);
}

bool BoundParameter::read(const BoundGroup& group, const py::object& gradient, const Look& look, Reading reading,
                          StepPlan& plan, KeepAlive& keep_alive) {
  // A GPU finds out by itself whether a cycle ends.
  const bool asks_gpu = group.averages_at_cycle_ends() && look.has_parameter && !is_cpu(look.parameter.device);
  const bool averages = plan.groups[group_].averages || asks_gpu;
  has_other_buffer_ = has_other_average_ = false;
  if (!gradient && !averages) return false;
  if (!look.has_parameter) throw py::type_error(name() + ": " + why_unreadable(parameter_));
  const DLTensor& view = look.parameter;
  const bool other_layout = !seen_ || !is_exactly(layout_, view);
  if (other_layout) relayout(view);
  moved_ = other_layout || data_ != data_of(view);
  if (moved_ || size_ == 1) require_plain(parameter_.ptr(), "");
  data_ = data_of(view);

  // The slot is filled in place: a copy of bytes that were just written would wait for them.
  static const Slot blank = {};
  plan.slots.push_back(blank);
  Slot& slot = plan.slots.back();
  slot.parameter = data_;
  slot.size = size_;
  slot.group = group_;
  slot.dtype = slot.buffer_dtype = slot.gradient_dtype = dtype_;
  slot.device = static_cast<std::int16_t>(device());
  if (group.has_options()) {
    group.options().require_legal(dtype_, group_, index_);
    slot.buffer_dtype = group.options().buffer_dtype(dtype_);
  }
  // What look() has seen comes first: looking for state, and making it, may run any code.
  if (gradient) read_gradient(gradient, look, reading.writes_unscaled, plan, keep_alive);
  if (density_ == Density::gapped) {
    plan.copied.push_back({data_, static_cast<const char*>(data_) + layout_.span_bytes()});
    slot.parameter = dense_copy(parameter_, view, true, plan, keep_alive);
  }
  const auto content = reading.only_makes_state ? StateTensor::Content::zeros : StateTensor::Content::anything;
  if (gradient) read_buffer(look.has_buffer ? &look.buffer : nullptr, group.keeps_buffers(), content, slot);
  if (group.has_options()) read_extras(group, bool(gradient), averages, content, slot);
  return true;
}

void BoundParameter::refuse_second_gradient() const {
  throw std::runtime_error(
      name() +
      " got a second gradient before step(): release_gradients() uses each gradient at once, "
      "so they cannot be accumulated over several backward passes. To go on, call zero_grad(), then step()");
}

void BoundParameter::forget_new_state() {
  buffer_.drop_new();
  if (extras_) *extras_ = Extras();
  has_new_state_ = false;
}

void BoundParameter::write(KeepAlive& keep_alive) {
  if (!has_new_state_) return;
  buffer_.write(state_, keep_alive.replaced);
  if (extras_) {
    extras_->average.write(state_, keep_alive.replaced);
    extras_->compensation.write(state_, keep_alive.replaced);
    extras_->master_weight.write(state_, keep_alive.replaced);
  }
  has_new_state_ = false;
}

int BoundParameter::traverse(visitproc visit, void* arg) const {
  Py_VISIT(parameter_.ptr());
  Py_VISIT(state_.ptr());
  if (const int stop = buffer_.traverse(visit, arg)) return stop;
  if (!extras_) return 0;
  for (const StateTensor* tensor : {&extras_->average, &extras_->compensation, &extras_->master_weight}) {
    if (const int stop = tensor->traverse(visit, arg)) return stop;
  }
  return 0;
}

}  // namespace clr
