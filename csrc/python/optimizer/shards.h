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

  // Asks the processes. Runs Python and waits for the others. Returns what is true of any of them; `makes_state` of
  // all.
  Flags vote(const BoundParameters& parameters, const BoundGroups& groups, Flags own);

  // Finds memory for the numbers of this step, and their places in it. `slots`: the position of each slot's parameter.
  // Returns false if that ran any code: tensors may have moved since.
  bool lay_out(const BoundParameters& parameters, const BoundGroups& groups, const std::vector<std::size_t>& slots,
               StepPlan& plan);
  // Adds them up over the processes. Runs Python, and waits for the others if the numbers lie on the CPU.
  void add_up(StepPlan& plan);

  // True if a parameter is FullyShardedDataParallel's.
  CLR_INLINE_MEMBER bool has_flat() const { return has_flat_; }
  // Throws if a rule looks at all gradients while FullyShardedDataParallel holds shards in plain tensors.
  void refuse_flat(const BoundGroups& groups, const GradientOptions& options, const StepRequest& request) const;

  int traverse(visitproc visit, void* arg) const {
    Py_VISIT(sharding_.ptr());
    Py_VISIT(tensors_.ptr());
    Py_VISIT(tensor_.ptr());
    return 0;
  }

 private:
  // Of each sum: the place of its squares, and how many numbers it has.
  using Sums = std::vector<std::pair<std::uint32_t, std::uint32_t>>;
  // Sums of DTensors follow the flags. That of plain parameters, in which they often have no part, comes last.
  Sums sums(bool with_ratios) const;
  static std::uint32_t count_of(const Sums& sums) { return sums[0].first + sums[0].second; }
  py::object tensor_of(std::size_t count, const StepPlan& plan) const;
  void find_numbers(SharedNumbers& shared) const;
  void count(const BoundParameters& parameters);

  py::object sharding_, local_gradient_;
  py::list tensors_;                // all that have held numbers: a graph may go on with them
  py::object tensor_;               // of this step
  Sums sums_;                       // of this step
  std::vector<std::size_t> sizes_;  // how many DTensors go into each sum
  bool is_shared_ = false;
  bool counts_copies_ = true;  // False if another process counts plain parameters that all have whole
  bool is_counted_ = true;     // False if some parameter is sharded otherwise than when it was counted
  std::vector<bool> is_flat_;  // by position
  bool has_flat_ = false;
};

}  // namespace clr
