// The steps of an optimizer whose parameters lie on CUDA devices: from Python's groups to a plan for each device, and
// back.
//
// The device counts updates. What stands in the groups is the host's count, which takes every update for applied until
// synchronise() puts in what the devices have counted.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "core/plan.h"
#include "cuda/device_plan.h"
#include "python/optimizer/parameters.h"

namespace clr {

class DeviceSteps {
 public:
  // Has any step run on a device?
  bool are_used() const { return !plans_.empty(); }

  // Are these, with those that it has run on before, more than one?
  bool are_on_several(const std::vector<int>& devices) const;

  // Is the current stream of a device that it has run on being captured in a graph?
  bool is_captured() const;

  // Should the host learn what the devices have counted before it goes on? After a skipped update, after a graph was
  // replayed, and where somebody has moved a group.
  bool is_behind(const Groups& groups) const;

  // Call synchronise() before, if there are graphs or steps since. The parameters are others than before, or stand at
  // other positions: nothing is known of their state.
  void forget_parameters();
  // The next step finds other memory of this kind in the state of a parameter. `holds`: does it hold anything yet?
  void note_state(int device, StateChange change) { changes_[device].push_back(change); }

  // Tables for one step, for all devices that the optimizer has been on. `devices`: of each slot. `captured`: the step
  // becomes part of a graph. Throws RuntimeError for what a graph cannot hold.
  void prepare(const Groups& groups, std::size_t parameters, const std::vector<Slot>& slots,
               const std::vector<int>& devices, bool new_state, bool captured);
  // Launches.
  void measure(const DeviceStep& step);
  void step(const DeviceStep& step, bool captured);

  // Waits for the devices and writes the groups. Returns the positions of parameters whose buffer (average) holds
  // nothing although a step was to fill it: it was skipped.
  struct Empty {
    std::vector<std::size_t> buffers, averages;
  };
  Empty synchronise(const Groups& groups);

  // Waits for the devices: of the last step.
  DeviceProgress last_step() const;

 private:
  struct OneDevice {
    std::unique_ptr<DevicePlan> plan;
    bool has_parameters = false;
    bool has_groups = false;
    std::vector<char> told_of_buffer, told_of_average;  // by position: does it know of any?
    std::vector<Slot> slots;                            // of this step; unused where there is one device only
  };

  void set_groups(const Groups& groups);
  std::size_t row_of(std::uint64_t origin, std::size_t guess) const;
  void tell(OneDevice& device, void* stream, std::size_t parameters);
  void refuse_capture(bool new_state) const;
  void require_readable() const;

  std::map<int, OneDevice> plans_;
  std::map<int, std::vector<StateChange>> changes_;  // that a device has yet to be told of
  std::vector<GroupSettings> settings_;              // of this step
  std::vector<GroupProgress> progress_;
  std::vector<std::uint64_t> ids_, origins_;  // of the bindings that the devices know
  std::vector<std::uint64_t> new_ids_, new_origins_;
  bool parameters_known_ = false;
  bool other_groups_ = true, other_origins_ = true;
  bool runs_ahead_ = false;  // has the device been told anything since the last synchronise()?
  bool has_graphs_ = false;
  std::uint64_t seen_skipped_ = 0, launched_ = 0;
};

}  // namespace clr
