// The half of BoundGroup that writes: what stands in the group after an update, after a skipped one, and after a device
// has counted.
#include <utility>

#include "python/optimizer/group.h"
#include "python/torch/group_keys.h"

namespace clr {

Scheduled BoundGroup::scheduled() const {
  const Value value = scheduled_value();
  Scheduled here = {bound_.pieces, progress_.step, value, settings_.lr_scale, step_object_, py::float_(scheduled_lr()),
                    py::object()};
  if (has_momentum(value)) here.momentum = py::float_(value.momentum);
  return here;
}

void BoundGroup::write_schedule() {
  written_ = scheduled();
  if (bound_.is_constant) {
    settings_.lr_override = scheduled_lr();
    settings_.momentum_override = progress_.momentum;
  }
  write_items();
}

void BoundGroup::restore() {
  write_items();
  forget();
}

// Returns the one of two objects that has this value, or a new object.
py::object BoundGroup::shared(double value, double a, const py::object& object_a, double b,
                              const py::object& object_b) {
  if (object_a && same_bits(value, a)) return object_a;
  if (object_b && same_bits(value, b)) return object_b;
  return py::float_(value);
}

// Makes the Python objects of the counters that this update changes.
void BoundGroup::prepare_counters(const GroupProgress& counted) {
  const auto object = [](std::uint64_t count, std::uint64_t before) {
    return count == before ? py::object() : py::object(py::int_(count));
  };
  next_n_averaged_ = object(counted.n_averaged, progress_.n_averaged);
  next_n_updates_ = object(counted.n_updates, progress_.n_updates);
}

void BoundGroup::prepare_next(const Scheduled& before, const BoundGroup& first) {
  ends_cycle_ = settings_.averaging == Averaging::at_cycle_ends && first.ends_cycle();
  GroupProgress counted = progress_;
  advance(settings_, counted, ends_cycle_);
  if (has_options_) prepare_counters(counted);
  const bool stays = counted.step == progress_.step;
  const bool same_step = !stays && before.schedule != nullptr && before.step == counted.step;
  const bool same_values = before.schedule == bound_.pieces && before.lr_scale == settings_.lr_scale;
  if (same_step && same_values && !calls_back() && !bound_.is_constant) {
    next_ = before;
    return;
  }
  const Value value = stays || bound_.is_constant ? scheduled_value() : bound_.value(counted.step, scale_fns_);
  next_.schedule = bound_.pieces;
  next_.step = counted.step;
  next_.value = value;
  next_.lr_scale = settings_.lr_scale;
  next_.step_object = stays ? step_object_ : same_step ? before.step_object : py::int_(counted.step);
  if (bound_.is_constant) {
    next_.lr = written_.lr;
    next_.momentum = written_.momentum;
    return;
  }
  // The object is reused while its value holds: a user who puts back the object that was written before must not count
  // as an override.
  next_.lr = shared(scaled_lr(settings_, value.lr), written_.scaled_lr(), written_.lr, before.scaled_lr(), before.lr);
  next_.momentum = py::object();
  if (has_momentum(value)) {
    next_.momentum =
        shared(value.momentum, written_.value.momentum, written_.momentum, before.value.momentum, before.momentum);
  }
}

void BoundGroup::write_items() {
  if (written_.lr) set_group_item(group_.ptr(), keys().lr, written_.lr);
  if (written_.momentum) set_group_item(group_.ptr(), keys().momentum, written_.momentum);
}

// Writes the objects of the next position. If nobody has touched the group, next_ keeps the replaced objects alive.
void BoundGroup::write_next(std::vector<py::object>& replaced) {
  const OwnWrites writing(group_);
  std::swap(written_, next_);
  if (!is_unchanged()) replaced.push_back(std::move(step_object_));
  step_object_ = written_.step_object;
  const auto write = [&](PyObject* key, const py::object& value) {
    is_unchanged() ? set_group_item(group_.ptr(), key, value) : replace_group_item(group_.ptr(), key, value, replaced);
  };
  write(keys().applied_steps, written_.step_object);
  if (bound_.is_constant) return;
  if (settings_.rate == nullptr) write(keys().lr, written_.lr);
  if (written_.momentum) write(keys().momentum, written_.momentum);
}

void BoundGroup::write(std::vector<py::object>& replaced) {
  // Counters are not among the remembered entries: without versions, a group that counts is read anew at every step.
  if (next_n_averaged_ || next_n_updates_) entries_.clear();
  const bool untouched = version_ != 0 && version_ == group_.version();
  const bool same_keys = has_scheduled_momentum() == has_momentum(next_.value);
  if (next_n_averaged_) replace_group_item(group_.ptr(), keys().n_averaged, next_n_averaged_, replaced);
  if (next_n_updates_) replace_group_item(group_.ptr(), keys().n_updates, next_n_updates_, replaced);
  followed_ = !is_overridden();
  last_used_ = next_value(settings_, progress_);
  updated_ = true;
  advance(settings_, progress_, ends_cycle_);
  clr::prepare_next(settings_, progress_, next_.value);
  write_next(replaced);
  if (!same_keys) return forget();
  version_ = untouched ? group_.version() : 0;
  if (untouched && !bound_.is_constant) entries_.clear();  // the version suffices
  if (entries_.empty()) return;
  entries_[place_.step].second = written_.step_object.ptr();
  entries_[place_.lr].second = written_.lr.ptr();
  if (written_.momentum) entries_[place_.momentum].second = written_.momentum.ptr();
}

void BoundGroup::prepare_skipped() {
  if (progress_.skipped == INT64_MAX) {
    throw py::value_error(reader().name_value(keys().skipped_steps, reader().item(keys().skipped_steps).ptr()) +
                          " must be below 2**63 - 1: a skipped step is to be counted on it");
  }
  next_skipped_ = py::int_(progress_.skipped + 1);
}

void BoundGroup::write_skipped(bool goes_on, std::vector<py::object>& replaced) {
  const std::uint64_t step = progress_.step;
  advance_skipped(settings_, progress_, goes_on);
  if (progress_.step != step) {
    clr::prepare_next(settings_, progress_, next_.value);
    write_next(replaced);
  }
  followed_ = false;
  replace_group_item(group_.ptr(), keys().skipped_steps, next_skipped_, replaced);
  forget();
}

void BoundGroup::take(const GroupProgress& counted, const Value* pending, bool last_skipped) {
  const bool own_lr = reader().item(keys().lr).is(written_.lr);
  const bool own_momentum = written_.momentum && reader().item(keys().momentum).is(written_.momentum);
  const bool own_step = reader().item(keys().applied_steps).is(step_object_);
  const GroupProgress before = progress_;
  const Value value =
      counted.step == before.step || bound_.is_constant ? scheduled_value() : bound_.value(counted.step, scale_fns_);
  progress_ = counted;
  settings_.override_number = counted.last_override;
  clr::prepare_next(settings_, progress_, value);
  if (counted.step != before.step) {
    followed_ = true;
    use(counted.step);
    step_object_ = py::int_(counted.step);
    if (own_step) set_group_item(group_.ptr(), keys().applied_steps, step_object_);
    if (!bound_.is_constant) written_ = scheduled();
  }
  if (last_skipped) followed_ = false;
  const auto write = [&](PyObject* key, bool own, const py::object& scheduled, double set) {
    if (own && scheduled && !bound_.is_constant)
      set_group_item(group_.ptr(), key, pending != nullptr ? py::float_(set) : scheduled);
  };
  write(keys().lr, own_lr, written_.lr, pending != nullptr ? pending->lr : 0.0);
  write(keys().momentum, own_momentum, written_.momentum, pending != nullptr ? pending->momentum : 0.0);
  take_count(keys().skipped_steps, counted.skipped, before.skipped);
  take_count(keys().n_averaged, counted.n_averaged, before.n_averaged);
  take_count(keys().n_updates, counted.n_updates, before.n_updates);
  forget();
}

// Notes the values of the update before `step`, which the device has applied.
void BoundGroup::use(std::uint64_t step) {
  updated_ = step > 0;
  if (!updated_ || bound_.is_constant) return;
  last_used_ = bound_.value(step - 1, scale_fns_);
  last_used_.lr = scaled_lr(settings_, last_used_.lr);
  if (!has_momentum(last_used_)) last_used_.momentum = settings_.momentum;
}

// Writes a count that has changed, unless somebody has put another one there.
void BoundGroup::take_count(PyObject* key, std::uint64_t count, std::uint64_t before) {
  const py::object standing = reader().item(key);
  const bool is_own = PyLong_Check(standing.ptr()) && standing.equal(py::int_(before));
  if (count != before && is_own) set_group_item(group_.ptr(), key, py::int_(count));
}

}  // namespace clr
