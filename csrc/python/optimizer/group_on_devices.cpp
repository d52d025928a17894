// What devices are told of a parameter group, and what they have counted written back into it.
#include "python/optimizer/group.h"
#include "python/torch/group_keys.h"

namespace clr {

GroupSettings GroupBinding::device_settings() const {
  GroupSettings settings{};
  settings.pieces = bound_.pieces;
  settings.piece_count = bound_.count;
  settings.momentum = momentum_.value;
  settings.dampening = values_.dampening;
  settings.weight_decay = values_.weight_decay;
  settings.nesterov = values_.nesterov;
  settings.maximize = values_.maximize;
  settings.constant = bound_.is_constant;
  tail_.describe(settings);
  return settings;
}

GroupProgress GroupBinding::device_progress() const {
  GroupProgress progress{};
  progress.lr = current_.lr;
  progress.momentum = current_.momentum;
  progress.step = step_;
  progress.skipped = skipped_;
  tail_.describe(progress);
  return progress;
}

void GroupBinding::take(const GroupProgress& counted, const Value* by_hand) {
  const bool own_lr = reader().item(keys().lr).is(written_.lr);
  const bool own_momentum = written_.momentum && reader().item(keys().momentum).is(written_.momentum);
  if (counted.step != step_) {
    step_ = counted.step;
    step_object_ = py::int_(counted.step);
    set_group_item(group_.ptr(), keys().applied_steps, step_object_);
    if (!bound_.is_constant) current_ = bound_.value(step_, scale_fns_);
    if (!bound_.is_constant) written_ = scheduled();
  }
  const auto write = [&](PyObject* key, bool own, const py::object& scheduled, double set) {
    if (own && scheduled && !bound_.is_constant)
      set_group_item(group_.ptr(), key, by_hand != nullptr ? py::float_(set) : scheduled);
  };
  write(keys().lr, own_lr, written_.lr, by_hand != nullptr ? by_hand->lr : 0.0);
  write(keys().momentum, own_momentum, written_.momentum, by_hand != nullptr ? by_hand->momentum : 0.0);
  if (counted.skipped != skipped_) {
    skipped_ = counted.skipped;
    set_group_item(group_.ptr(), keys().skipped_steps, py::int_(skipped_));
  }
  tail_.take(counted, group_.ptr());
  forget();
}

}  // namespace clr
