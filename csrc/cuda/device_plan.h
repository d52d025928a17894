// One optimizer's tables on one device: filled by the host when something has changed, kept up by the kernels.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "cuda/tables.h"

namespace clr {

// What the device knows better than the host.
struct DeviceProgress {
  std::vector<GroupProgress> groups;
  std::vector<char> buffer_holds, average_holds;  // by position of the parameter
  DeviceReport counts{};
  double norm = 0.0, clip_coefficient = 1.0;  // of the last step that measured its gradients
};

// The state of the parameter at a position is other memory than before: does that hold anything yet?
struct StateChange {
  std::size_t position;
  bool is_average;
  bool holds;
};

// All functions throw std::runtime_error with the driver's words. `stream`: a CUstream; what a function does takes its
// place in that stream, and none waits for the device but read().
//
// Memory that a launch may have been told of is kept as long as this object, for a graph may replay the launch.
class DevicePlan {
 public:
  virtual ~DevicePlan() = default;

  // The settings of all groups, whose pieces lie in the host's memory and are those of the last call unless
  // `other_pieces`. Copies what has changed.
  virtual void set_groups(void* stream, const std::vector<GroupSettings>& settings, bool other_pieces) = 0;
  // Are these the settings that were set last?
  virtual bool has_groups(const std::vector<GroupSettings>& settings) const = 0;

  // Moves all groups.
  virtual void set_progress(void* stream, const std::vector<GroupProgress>& progress) = 0;

  // From now on there are so many parameters, of whose state nothing is known.
  virtual void set_parameters(void* stream, std::size_t count) = 0;
  virtual void set_state(void* stream, const std::vector<StateChange>& changes) = 0;

  // What the next launches work on. random_key of a slot: the position of its parameter. Copies what has changed.
  virtual void set_work(void* stream, const std::vector<Slot>& slots) = 0;
  // The same for launches that are captured: in tables of their own, at once. Nothing but this and launches may be
  // called while a stream of the device is captured.
  virtual void set_captured_work(const std::vector<Slot>& slots) = 0;
  // One launch each. measure() finds out about the gradients what step() is to be told is measured.
  virtual void measure(void* stream, const DeviceStep& step) = 0;
  virtual void step(void* stream, const DeviceStep& step) = 0;

  // Waits for the device. Empty if it has been given no work yet.
  virtual DeviceProgress read(void* stream) = 0;

  // What the device has reported so far, without waiting for it.
  virtual DeviceReport reported() const = 0;
};

// Is a stream of this device being captured in a graph?
bool is_captured(int ordinal, void* stream);

std::unique_ptr<DevicePlan> make_device_plan(int ordinal);

}  // namespace clr
