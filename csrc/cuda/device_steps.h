// Runs the steps of an optimizer whose parameters lie on CUDA devices. Keeps a plan for each device and remembers what
// has been copied to each.
//
// The devices count updates. The counts of the groups' owner assume that every update was applied, until synchronise()
// returns the counts of the devices.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "cuda/device_plan.h"
#include "kernel/executor.h"

namespace clr {

class DeviceSteps final : public Executor {
 public:
  // `host` must outlive this object.
  explicit DeviceSteps(const Host& host) : host_(host) {}

  // True if any step has run on a device.
  bool are_used() const { return !plans_.empty(); }
  // True if the running step becomes part of a graph.
  bool are_captured() const { return captured_; }

  // Call this before each step but the first. Returns true if that step becomes part of a graph: the current stream of
  // a device that has run steps is being captured.
  bool notice_capture();

  // A parameter, the plan's only slot, is updated in front of the step that the owner is in, in the stream that is
  // current: prepare_release() throws std::runtime_error if that cannot be, with nothing changed, and release() makes
  // the launch. `begins`: True for the first one of the step. Each waits for the one before, whose parameter may share
  // memory with this one, where they are in different streams; the step waits for all.
  void prepare_release(const StepPlan& plan, bool begins);
  void release(const StepPlan& plan);

  // True if the owner should read the counts of the devices before it goes on: after an update that was skipped or that
  // another process refused, after a graph was replayed, and if somebody has moved a group.
  bool is_behind(const std::vector<std::uint64_t>& position_versions) const;

  // Call this when a captured step is part of its graph. `are_noted`: True if note_replay() will follow each replay.
  void expect_replays(bool are_noted) { all_are_noted_ = all_are_noted_ && are_noted; }
  // Notes that a graph with captured steps has been put into the current streams.
  void note_replay();

  // Forgets the state of all parameters. Call this if the parameters, or their positions, have changed. Call
  // synchronise() before it if steps or graphs have run since the last synchronise().
  void forget_parameters();
  // Notes that the next step finds other memory of this kind in the state of a parameter.
  void note_state(int device, StateChange change) { changes_[device].push_back(change); }

  // Also throws std::runtime_error for a step that cannot be captured in a graph.
  void measure(const StepPlan& plan, const GradientOptions& options, const StepRequest& request) override;
  Measured decide(StepPlan& plan, const GradientOptions& options, const StepRequest& request) override;
  void run(const StepPlan& plan) override;
  LastStep last_step() const override;
  bool works_without_python() const override { return false; }

  // The counts of the devices.
  struct Counted {
    struct Group {
      GroupProgress progress;
      std::optional<Value> pending;  // lr and momentum of an override that is still to be carried out
    };
    std::vector<std::optional<Group>> groups;  // nullopt if the devices do not know the group, or if it was moved since
    // Positions of parameters whose buffer, or average, holds nothing because the step that was to fill it was skipped.
    // None once there are graphs, which may fill them yet.
    std::vector<std::size_t> empty_buffers, empty_averages;
    bool last_skipped = false;  // True if the last step was skipped
    bool refused = false;       // True if another process has refused a step since the last call
    bool stale = false;       // True if a graph of other groups was replayed since the last call, which changed nothing
    bool unusable = false;    // True if a step or a replay has changed nothing since: a schedule had no value for it
    bool has_applied = true;  // True if any step was applied
  };
  // Waits for the devices and returns their counts. `position_versions`: those of the owner's groups; 0 for no group.
  Counted synchronise(const std::vector<std::uint64_t>& position_versions);

 private:
  struct OneDevice {
    std::unique_ptr<DevicePlan> plan;
    bool has_parameters = false;
    bool has_groups = false;
    std::uint64_t scales_version = 0;                   // of the tables of scale functions that it has
    std::vector<char> told_of_buffer, told_of_average;  // by position: True if the device knows of one
    std::vector<Slot> slots;                            // of this step; unused where there is one device only
  };

  void refuse(const StepPlan& plan, const GradientOptions& options, const StepRequest& request) const;
  bool are_on_several(const StepPlan& plan) const;
  void prepare(const StepPlan& plan);
  void share(const StepPlan& plan);
  void take_groups(const std::vector<GroupRecord>& records);
  void begin_step(const StepPlan& plan);
  void tell_all(const StepPlan& plan);
  void add_device(int ordinal);
  std::size_t row_of(std::uint64_t position_version, std::size_t guess) const;
  void tell(int ordinal, OneDevice& device, const StepPlan& plan);
  void tell_changes(int ordinal, OneDevice& device);
  void refuse_capture(bool makes_state) const;
  bool is_captured() const;
  bool may_run_ahead() const { return runs_ahead_ || (has_graphs_ && !all_are_noted_); }
  void require_readable() const;
  DeviceProgress read_first() const;

  // Others may call while this waits for a device: a function that uses the plans holds this for as long as it runs.
  [[nodiscard]] std::unique_lock<std::recursive_mutex> alone() const;

  const Host& host_;
  mutable std::recursive_mutex in_use_;
  std::map<int, OneDevice> plans_;
  std::map<int, std::vector<StateChange>> changes_;  // not yet copied to the device
  DeviceStep step_{};                                // that was measured
  bool captured_ = false;                            // True if the step is part of a graph
  bool measured_norm_ = false, clips_ = false;
  std::vector<GroupSettings> settings_;  // of this step
  std::vector<GroupProgress> progress_;
  std::vector<std::uint64_t> group_ids_, binding_ids_, position_versions_;  // of the groups that the devices know
  std::vector<std::uint64_t> new_group_ids_, new_binding_ids_, new_position_versions_;
  std::uint64_t generation_ = 0;  // of group_ids_
  bool parameters_known_ = false;
  bool other_groups_ = true, other_positions_ = true;
  bool lacks_values_ = false;  // True if the devices have no values for the next update, which the host may have
  bool runs_ahead_ = false;    // True if steps have been launched, or replays noted, since the last synchronise()
  bool has_graphs_ = false;
  bool has_releases_ = false;  // True if parameters have been released since the last step
  bool all_are_noted_ = true;  // True if no graph is replayed unless it is noted
  std::uint64_t seen_skipped_ = 0, seen_refused_ = 0, seen_stale_ = 0, seen_unusable_ = 0, launched_ = 0;
};

}  // namespace clr
