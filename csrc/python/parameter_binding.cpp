#include "python/parameter_binding.h"

#include "python/dict_version.h"

namespace clr {

bool SeenTensors::Tensor::is(PyObject* object, void* at) const {
  if (at != data || !reference) return false;
#if PY_VERSION_HEX >= 0x030d0000
  PyObject* seen = nullptr;
  if (PyWeakref_GetRef(reference.ptr(), &seen) < 0) throw py::error_already_set();
  Py_XDECREF(seen);
  return seen == object;
#else
  return PyWeakref_GetObject(reference.ptr()) == object;
#endif
}

void Held::clear() {
  tensors.clear();
  copies.clear();
}

ParameterBinding::ParameterBinding(py::object parameter, std::uint32_t group, std::size_t index, std::size_t position)
    : group_(group), parameter_(std::move(parameter)), index_(index), position_(position) {}

void ParameterBinding::relayout(const DLTensor& view) {
  const Layout layout(view);
  require_device(layout.device, parameter_, name());
  const DType dtype = dtype_of(layout, parameter_, name());
  const Density density = require_writable(layout, parameter_, name());
  layout_ = layout;
  dtype_ = dtype;
  density_ = density;
  size_ = layout.size();
  buffer_.forget();  // to be looked at anew
  if (tail_) *tail_ = Tail();
  seen_ = true;
}

void ParameterBinding::require_plain(PyObject* tensor, const char* role) const {
  if (TorchReader::get().is_negative(tensor)) throw py::type_error(name() + role + ": " + why_unreadable(tensor));
}

// The gradient in the parameter's layout: itself, or a copy.
py::object ParameterBinding::readable_gradient(py::object grad, DLTensor& view) {
  const TorchReader& torch = TorchReader::get();
  if (!torch.read(grad.ptr(), view)) throw py::type_error(name() + ", gradient: " + why_unreadable(grad));
  // A single element is always asked about: autograd itself hands out lazy negatives of that size.
  if (size_ == 1 || !seen_gradients_.has(grad.ptr(), data_of(view))) {
    require_plain(grad.ptr(), ", gradient");
    seen_gradients_.add(grad.ptr(), data_of(view));
  }
  if (is_exactly(layout_, view) && density_ == Density::dense) return grad;
  require_alike(layout_, dtype_, view, grad, parameter_, name() + ", gradient");
  if (same_strides(layout_, view) && density_ == Density::dense) return grad;
  py::object copy = torch.empty_like(parameter_);
  torch.copy(copy, grad);
  torch.read(copy.ptr(), view);
  return copy;
}

void ParameterBinding::read_gradient(py::object grad, bool writes_unscaled, std::size_t place, Slot& slot, Held& held) {
  DLTensor view;
  if (!writes_unscaled) {
    held.tensors.push_back(readable_gradient(std::move(grad), view));
    slot.gradient = data_of(view);
    return;
  }
  py::object readable = readable_gradient(grad, view);
  slot.gradient = slot.unscaled = data_of(view);
  if (!readable.is(grad)) {
    const std::string what = name() + ", gradient to unscale";
    require_writable(Layout(must_read(grad, what)), grad, what);
    held.copies.push_back({place, std::move(grad), readable});
  }
  held.tensors.push_back(std::move(readable));
}

// Points the slot to the buffer to use, if there is one.
void ParameterBinding::read_buffer(const GroupBinding& group, Slot& slot) {
  const std::uint64_t version = state_ ? version_of(state_.ptr()) : 0;
  const bool unchanged = slot.buffer_dtype == buffer_dtype_ && buffer_.is_known() &&
                         ((version != 0 && version == state_version_) || buffer_.is_in(state_.ptr()));
  has_other_buffer_ = !unchanged;
  if (!unchanged) {
    if (slot.buffer_dtype != buffer_dtype_) buffer_.forget();
    buffer_dtype_ = slot.buffer_dtype;
    const void* const before = buffer_.data();
    slot.first = !buffer_.find(state_.ptr(), slot.buffer_dtype, owner());
    if (slot.first && group.keeps_buffers()) buffer_.make(slot.buffer_dtype, owner(), StateTensor::Content::none);
    has_new_state_ = has_new_state_ || buffer_.is_new();
    moved_ = moved_ || buffer_.data() != before;
  }
  if (buffer_.is_known()) state_version_ = version;
  slot.buffer = buffer_.data();
}

// Finds the tensor in the state, or makes it. Returns whether it holds anything.
bool ParameterBinding::read_state(StateTensor& tensor, DType dtype, StateTensor::Content content) {
  if (tensor.is_in(state_.ptr())) return true;
  const void* const before = tensor.data();
  const bool found = tensor.find(state_.ptr(), dtype, owner());
  if (!found) tensor.make(dtype, owner(), content);
  has_new_state_ = has_new_state_ || tensor.is_new();
  moved_ = moved_ || tensor.data() != before;
  return found || content != StateTensor::Content::none;
}

// What a slot has beyond parameter, gradient and buffer.
void ParameterBinding::read_tail(const GroupTail& tail, bool averages, Slot& slot) {
  slot.storage = tail.storage();
  slot.trusted = slot.gradient != nullptr && tail.trusts(layout_.ndim());
  slot.random_key = slot.storage == Storage::stochastic ? tail.random_key(position_) : 0;
  const bool splits = slot.storage == Storage::split && slot.gradient != nullptr;
  const bool masters = slot.storage == Storage::master;
  if (!tail_ && (averages || splits || masters)) tail_ = std::make_unique<Tail>();
  const DType wide = companion_dtype(dtype_, slot.storage);
  if (splits) {
    read_state(tail_->compensation, wide, StateTensor::Content::zeros);
    slot.companion = tail_->compensation.data();
  }
  if (masters) {
    read_state(tail_->master_weight, wide, StateTensor::Content::parameter);
    slot.companion = tail_->master_weight.data();
  }
  if (averages) {
    has_other_average_ = !tail_->average.is_in(state_.ptr());
    average_holds_ = read_state(tail_->average, wide, StateTensor::Content::none);
    slot.first_average = !average_holds_ || tail.average_is_empty();
    slot.average = tail_->average.data();
  }
}

// The slot's parameter is a dense copy, from where the values go back.
void ParameterBinding::copy_gapped(Slot& slot, StepPlan& plan, Held& held) const {
  py::object dense = TorchReader::get().empty_like(parameter_);
  TorchReader::get().copy(dense, parameter_);
  slot.parameter = data_of(must_read(dense, name()));
  plan.copied.push_back({data_, static_cast<const char*>(data_) + layout_.span_bytes()});
  held.copies.push_back({plan.slots.size() - 1, parameter_, std::move(dense)});
}

bool ParameterBinding::read(const GroupBinding& group, bool writes_unscaled, StepPlan& plan, Held& held) {
  const TorchReader& torch = TorchReader::get();
  const bool averages = plan.groups[group_].averages;
  has_other_buffer_ = has_other_average_ = false;
  if (has_new_state_) drop_new_state();
  py::object grad = torch.grad(parameter_.ptr());
  has_gradient_ = bool(grad);
  if (!grad && !averages) return false;
  DLTensor view;
  if (!torch.read(parameter_.ptr(), view)) throw py::type_error(name() + ": " + why_unreadable(parameter_));
  const bool other_layout = !seen_ || !is_exactly(layout_, view);
  if (other_layout) relayout(view);
  moved_ = other_layout || data_ != data_of(view);
  if (moved_ || size_ == 1) require_plain(parameter_.ptr(), "");
  data_ = data_of(view);

  const GroupTail& tail = group.tail();
  // Filled in where it stands: a copy of bytes just written would wait for them.
  static const Slot blank = {};
  plan.slots.push_back(blank);
  Slot& slot = plan.slots.back();
  slot.parameter = data_;
  slot.size = size_;
  slot.group = group_;
  slot.dtype = slot.buffer_dtype = dtype_;
  if (!tail.is_plain()) {
    tail.require_legal(dtype_, group_, index_);
    slot.buffer_dtype = tail.buffer_dtype(dtype_);
  }
  if (grad) {
    read_buffer(group, slot);
    read_gradient(std::move(grad), writes_unscaled, plan.slots.size() - 1, slot, held);
  }
  if (!tail.is_plain()) read_tail(tail, averages, slot);
  if (density_ == Density::gapped) copy_gapped(slot, plan, held);
  return true;
}

void ParameterBinding::refuse_second_gradient() const {
  throw std::runtime_error(
      name() +
      " got a second gradient before step(): release_gradients() uses each gradient at once, "
      "so they cannot be accumulated over several backward passes. To go on, call zero_grad(), then step()");
}

// That a step made and did not write: it was skipped or refused.
void ParameterBinding::drop_new_state() {
  buffer_.drop_new();
  if (tail_) *tail_ = Tail();
  has_new_state_ = false;
}

void ParameterBinding::write(const py::dict& optimizer_state) {
  if (!has_new_state_) return;
  py::dict state = state_ ? py::reinterpret_borrow<py::dict>(state_) : py::dict();
  buffer_.write(state);
  if (tail_) {
    tail_->average.write(state);
    tail_->compensation.write(state);
    tail_->master_weight.write(state);
  }
  optimizer_state[parameter_] = state;
  bind_state(state.ptr());
  has_new_state_ = false;
}

int ParameterBinding::traverse(visitproc visit, void* arg) const {
  Py_VISIT(parameter_.ptr());
  Py_VISIT(state_.ptr());
  if (const int stop = buffer_.traverse(visit, arg)) return stop;
  if (!tail_) return 0;
  for (const StateTensor* tensor : {&tail_->average, &tail_->compensation, &tail_->master_weight}) {
    if (const int stop = tensor->traverse(visit, arg)) return stop;
  }
  return 0;
}

}  // namespace clr
