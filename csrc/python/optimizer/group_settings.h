// What a parameter group says about the tail of a step: averages, layer-wise rates, 16-bit weights and buffers.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/slot.h"
#include "cuda/tables.h"
#include "python/torch/group_dict.h"

namespace clr {

enum class Averaging : std::uint8_t { none, exponential, at_cycle_ends };

class GroupTail {
 public:
  // Reads and checks all settings.
  void read(const GroupReader& group);

  Averaging averaging() const { return averaging_; }
  Storage storage() const { return storage_; }
  // Of the momentum buffer of a parameter of this dtype.
  DType buffer_dtype(DType parameter) const;
  // Throws ValueError for what cannot be kept with this dtype, of parameter `index` of group `group`.
  void require_legal(DType parameter, std::size_t group, std::size_t index) const;

  // Is there nothing but an update?
  bool is_plain() const {
    return averaging_ == Averaging::none && storage_ == Storage::nearest && !momentum_dtype_ &&
           trust_coefficient_ == 0.0;
  }

  // Do this many dimensions take a rate of their own?
  bool trusts(std::size_t dimensions) const { return trust_coefficient_ != 0.0 && dimensions >= trust_min_ndim_; }

  std::uint64_t random_key(std::uint64_t parameter) const;

  // Has no update counted in the average yet? Then the next one is its first.
  bool average_is_empty() const { return n_averaged_ == 0; }

  // Fills in what this update does besides moving weights. `at_cycle_end`: it is the last of a cycle.
  void prepare(bool at_cycle_end, GroupValues& values);
  // The same for a step that only makes state.
  void prepare_state(GroupValues& values);

  std::uint64_t n_averaged() const { return n_averaged_; }
  std::uint64_t n_updates() const { return n_updates_; }

  // What a device is told, and what it has counted.
  void describe(GroupSettings& settings) const;
  void describe(GroupProgress& progress) const;
  void take(const GroupProgress& counted, PyObject* group);

  // Does write() write anything?
  bool counts() const { return counts_average_ || counts_update_; }
  // Counts the update that prepare() prepared. Runs no Python: `replaced` takes what stood there.
  void write(PyObject* group, std::vector<py::object>& replaced);

 private:
  double number(const GroupReader& group, PyObject* key) const;
  void read_averaging(const GroupReader& group);
  void read_trust(const GroupReader& group);
  void read_storage(const GroupReader& group);

  Averaging averaging_ = Averaging::none;
  bool warm_up_ = false;
  bool counts_average_ = false, counts_update_ = false;  // this update
  py::object next_n_averaged_, next_n_updates_;          // what write() writes
  Storage storage_ = Storage::nearest;
  std::optional<DType> momentum_dtype_;
  double decay_ = 0.0;
  double trust_coefficient_ = 0.0, trust_eps_ = 0.0;
  std::uint64_t trust_min_ndim_ = 0;
  std::uint64_t n_averaged_ = 0, n_updates_ = 0, seed_ = 0;
};

}  // namespace clr
