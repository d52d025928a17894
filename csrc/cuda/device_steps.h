// Runs the steps of an optimizer whose parameters lie on CUDA devices: keeps a plan for each device, and knows what
// each has been told.
//
// The devices count updates. What the owner of the groups has counted takes every update for applied, until
// synchronise() tells what the devices have counted.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "cuda/device_plan.h"
#include "kernel/executor.h"

namespace clr {

class DeviceSteps final : public Executor {
 public:
  // The stream that work goes into now, on a device.
  using CurrentStream = void* (*)(int device);

  explicit DeviceSteps(CurrentStream current_stream) : current_stream_(current_stream) {}

  // True if any step has run on a device.
  bool are_used() const { return !plans_.empty(); }

  // To be called before each step but the first. Returns true if that step becomes part of a graph: the current stream
  // of a device that steps have run on is being captured.
  bool notice_capture();

  // True if the owner should learn what the devices have counted before it goes on: after a skipped update, after a
  // graph was replayed, and where somebody has moved a group.
  bool is_behind(const std::vector<std::uint64_t>& position_versions) const;

  // Call synchronise() before, if there are graphs or steps since. The parameters are others than before, or stand at
  // other positions: nothing is known of their state.
  void forget_parameters();
  // The next step finds other memory of this kind in the state of a parameter. `holds`: True if that has numbers.
  void note_state(int device, StateChange change) { changes_[device].push_back(change); }

  // Throws std::runtime_error also for what a graph cannot hold.
  Measured measure(StepPlan& plan, const GradientOptions& options, const StepRequest& request) override;
  void run(const StepPlan& plan) override;
  LastStep last_step() const override;
  bool works_without_python() const override { return false; }

  // What the devices have counted.
  struct Counted {
    struct Group {
      GroupProgress progress;
      std::optional<Value> pending;  // lr and momentum of an override that is yet to be carried out
    };
    std::vector<std::optional<Group>> groups;  // nothing for one that the devices do not know, or that has moved since
    // Positions of parameters whose buffer, or average, holds nothing although a step was to fill it: it was skipped.
    std::vector<std::size_t> empty_buffers, empty_averages;
    bool last_skipped = false;  // True if the last step was skipped
  };
  // Waits for the devices. `position_versions`: of the owner's groups; 0 for none.
  Counted synchronise(const std::vector<std::uint64_t>& position_versions);

 private:
  struct OneDevice {
    std::unique_ptr<DevicePlan> plan;
    bool has_parameters = false;
    bool has_groups = false;
    std::vector<char> told_of_buffer, told_of_average;  // by position: does it know of any?
    std::vector<Slot> slots;                            // of this step; unused where there is one device only
  };

  void refuse(const StepPlan& plan, const GradientOptions& options, const StepRequest& request) const;
  bool are_on_several(const StepPlan& plan) const;
  void prepare(const StepPlan& plan);
  void take_groups(const std::vector<GroupRecord>& records);
  void add_devices(const std::vector<Slot>& slots);
  std::size_t row_of(std::uint64_t position_version, std::size_t guess) const;
  void tell(int ordinal, OneDevice& device, std::size_t parameters);
  void refuse_capture(bool makes_state) const;
  bool is_captured() const;
  void require_readable() const;
  DeviceProgress read_first() const;

  CurrentStream current_stream_;
  std::map<int, OneDevice> plans_;
  std::map<int, std::vector<StateChange>> changes_;  // that a device has yet to be told of
  DeviceStep step_{};                                // that was measured
  bool captured_ = false;                            // is it part of a graph?
  bool measured_norm_ = false, clips_ = false;
  std::vector<GroupSettings> settings_;  // of this step
  std::vector<GroupProgress> progress_;
  std::vector<std::uint64_t> binding_ids_, position_versions_;  // of the groups that the devices know
  std::vector<std::uint64_t> new_binding_ids_, new_position_versions_;
  bool parameters_known_ = false;
  bool other_groups_ = true, other_positions_ = true;
  bool runs_ahead_ = false;  // has the device been told anything since the last synchronise()?
  bool has_graphs_ = false;
  std::uint64_t seen_skipped_ = 0, launched_ = 0;
};

}  // namespace clr
