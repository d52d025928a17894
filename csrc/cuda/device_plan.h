// One optimizer's tables on one device. The host fills them when something has changed, and the kernels keep them up to
// date.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "cuda/host.h"
#include "cuda/tables.h"
#include "kernel/plan.h"

namespace clr {

// The counts and results of which the device has the newest values.
struct DeviceProgress {
  std::vector<GroupProgress> groups;
  std::vector<char> buffer_holds, average_holds;  // by position of the parameter
  DeviceReport counts{};
  double norm = 0.0, clip_coefficient = 1.0;  // of the last step that measured its gradients
  bool refused = false;                       // True if another process has refused that step
  bool unusable = false;                      // True if a schedule has no value that the next update could use
};

// A change of the memory that holds the buffer, or the average, of the parameter at a position. `holds`: True if the
// new memory holds numbers already.
struct StateChange {
  std::size_t position;
  bool is_average;
  bool holds;
};

// All functions throw std::runtime_error with the driver's words. `stream` is a CUstream: functions put their work into
// that stream. Only read() waits for the device.
//
// Memory that a launch has used is kept as long as this object, because a graph may replay the launch. The object must
// outlive the graph.
class DevicePlan {
 public:
  virtual ~DevicePlan() = default;

  // Sets the settings of all groups, the cycles of the first, and the tables of scale functions. Pieces and cycles lie
  // in the host's memory. They, and the tables, are those of the last call unless `other_schedules`. Copies only the
  // settings that have changed. Launches of another `generation` change nothing.
  virtual void set_groups(void* stream, const std::vector<GroupSettings>& settings, const Cycles& cycles,
                          const std::vector<TabulatedScales>& scales, bool other_schedules,
                          std::uint64_t generation) = 0;
  // True if these are the settings that were set last.
  virtual bool has_groups(const std::vector<GroupSettings>& settings) const = 0;

  // Sets the positions and counters of all groups.
  virtual void set_progress(void* stream, const std::vector<GroupProgress>& progress) = 0;

  // Sets the number of parameters. Their state counts as empty until set_state() says otherwise.
  virtual void set_parameters(void* stream, std::size_t count) = 0;
  virtual void set_state(void* stream, const std::vector<StateChange>& changes) = 0;

  // Sets the slots of the next launches. random_key of a slot: the position of its parameter. `in_order`: True if some
  // share memory, so that their updates must follow each other. Copies the table only if it has changed.
  virtual void set_work(void* stream, const std::vector<Slot>& slots, const SharedNumbers& shared, bool in_order) = 0;
  // Sets the slots of launches that are captured. They get tables of their own, which are copied at once. While a
  // stream of the device is captured, only this function and launches may be called.
  virtual void set_captured_work(const std::vector<Slot>& slots, const SharedNumbers& shared, bool in_order) = 0;
  // True if these are the slots of the next launches.
  virtual bool has_work(const std::vector<Slot>& slots) const = 0;
  // Each makes one launch. measure() finds the norm, the lengths of tensors and any infinity that step() uses if
  // `step.measured`. If processes share the model, it writes the shared numbers, and share() finds the rest when they
  // have been added up.
  virtual void measure(void* stream, const DeviceStep& step) = 0;
  virtual void share(void* stream, const DeviceStep& step) = 0;
  virtual void step(void* stream, const DeviceStep& step) = 0;

  // Updates one slot in front of the next step. Makes one launch.
  virtual void release(void* stream, const Slot& slot, const DeviceStep& step) = 0;
  // The work that comes into `stream` from now on waits for all releases since the last step.
  virtual void wait_for_releases(void* stream) = 0;

  // Notes that the work in `stream` may have changed the progress.
  virtual void mark(void* stream) = 0;
  // Reads the progress as it is behind the last step or mark, whatever its stream was, and behind the work that is in
  // `stream` now: a graph may have been replayed there. Waits for that. Returns an empty DeviceProgress if the device
  // has been given no work yet.
  virtual DeviceProgress read(void* stream) = 0;

  // Returns the device's report so far, without waiting for the device.
  virtual DeviceReport reported() const = 0;
};

// True if this stream of the device is being captured in a graph.
bool is_captured(int ordinal, void* stream);

std::unique_ptr<DevicePlan> make_device_plan(int ordinal, const Host& host);

}  // namespace clr
