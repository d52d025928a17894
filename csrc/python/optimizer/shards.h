// The processes that hold a model's shards. An optimizer whose parameters are DTensors, or shards in plain tensors,
// adds up over them what an update needs of all gradients.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

#include "kernel/executor.h"
#include "python/optimizer/groups.h"
#include "python/optimizer/parameters.h"

namespace clr {

class Shards {
 public:
  // `sharding`: an object of sgd/sharding.py.
  explicit Shards(py::object sharding);

  // True if other processes hold other parts of the model. Call refresh() after the process group of plain parameters
  // was set.
  CLR_INLINE_MEMBER bool is_shared() const { return is_shared_; }
  void refresh();

  // Notes the parameters of a group that has been added.
  void note(const py::dict& group);
  // Notes the parameters of all groups, which have replaced all others.
  void note_all(const BoundGroups& groups);
  // Finds out where the parameters lie. Runs Python.
  void bind(BoundParameters& parameters);

  // Replaces a parameter's gradient, which may be null, by this process's part of it. Returns false if that ran, or may
  // have run, any code. Throws for a gradient that is no such tensor as its parameter, and for one that is to be
  // written but is sharded otherwise.
  bool localise(BoundParameter& parameter, py::object& gradient, bool is_written);

  // What processes tell each other about a step besides numbers.
  struct Flags {
    bool refuses = false;      // this process cannot carry it out
    bool makes_state = false;  // this process was only asked to make state
  };

  // True if a group takes trust ratios.
  static bool trusts(const BoundGroups& groups);

  // True if a rule looks at all gradients, so that this step has to add up over processes.
  bool must_add_up(const BoundGroups& groups, const GradientOptions& options, const StepRequest& request) const;

  // Adds up over the processes. Runs Python and waits for the others. Returns what is true of any of them;
  // `makes_state` of all. `slots`: the position of each slot's parameter. `found`: what this process has measured, or
  // null; it then becomes what all have.
  Flags add_up(const BoundParameters& parameters, const BoundGroups& groups, const std::vector<std::size_t>& slots,
               Found* found, Flags own);

  // True if a parameter is FullyShardedDataParallel's.
  CLR_INLINE_MEMBER bool has_flat() const { return has_flat_; }
  // Throws if a rule looks at all gradients while FullyShardedDataParallel holds shards in plain tensors.
  void refuse_flat(const BoundGroups& groups, const GradientOptions& options, const StepRequest& request) const;

  int traverse(visitproc visit, void* arg) const {
    Py_VISIT(sharding_.ptr());
    Py_VISIT(numbers_.ptr());
    return 0;
  }

 private:
  struct NumberPlaces {
    std::size_t count;
    std::vector<std::size_t> sums, lengths;  // of each sum: its first number, which is its squares; how many it has
    std::vector<std::size_t> ratios;         // by position: the first of a DTensor's two; empty if none are taken
  };
  NumberPlaces lay_out(const BoundParameters& parameters, bool with_ratios) const;
  void put(const Found& found, const BoundParameters& parameters, const std::vector<std::size_t>& slots,
           const NumberPlaces& places, double* numbers) const;
  static void take(const double* numbers, const NumberPlaces& places, const BoundParameters& parameters,
                   const std::vector<std::size_t>& slots, Found& found);
  double* numbers(std::size_t count);

  void count(const BoundParameters& parameters);

  py::object sharding_, local_gradient_;
  py::object numbers_;              // a tensor of doubles
  std::vector<std::size_t> sizes_;  // how many DTensors go into each sum
  bool is_shared_ = false;
  bool is_counted_ = true;     // False if some parameter is sharded otherwise than when it was counted
  std::vector<bool> is_flat_;  // by position
  bool has_flat_ = false;
};

}  // namespace clr
