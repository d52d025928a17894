// The parameters of all groups, in their order, with their entries in optimizer.state.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "python/optimizer/groups.h"
#include "python/optimizer/parameter.h"

namespace clr {

class BoundParameters {
 public:
  // True if exactly the parameters of these groups are bound already.
  bool is_known(const BoundGroups& groups) const;

  // Binds the parameters of the groups. They replace those that were bound before.
  void bind(const BoundGroups& groups);

  // Looks every parameter up in optimizer.state if its entries are not those of the last step.
  void refresh_state(const py::dict& state);
  // Puts an empty dict into optimizer.state for each of these parameters that has none. Hashing a parameter runs
  // Python.
  void make_entries(const py::dict& state, const std::vector<std::size_t>& positions);
  // Removes the entries of these parameters that are still empty: torch.distributed makes state only if there is none
  // at all. Call this after the last counter is written, because it runs Python.
  void drop_empty_entries(const py::dict& state, const std::vector<std::size_t>& positions);
  // Removes the tensor `key`, which holds nothing, from the state of these parameters.
  void take_out(const py::dict& state, const std::vector<std::size_t>& positions, const char* key);
  // Makes the next refresh_state() look the entries up.
  void forget_state() { state_is_known_ = false; }

  std::vector<BoundParameter>::iterator begin() { return all_.begin(); }
  std::vector<BoundParameter>::iterator end() { return all_.end(); }

  std::size_t size() const { return all_.size(); }
  BoundParameter& operator[](std::size_t position) { return all_[position]; }
  const BoundParameter& operator[](std::size_t position) const { return all_[position]; }

  // Returns the position of a parameter. Looks at position `guess` first. Throws ValueError if the parameter is not
  // among them.
  std::size_t find(const py::object& parameter, std::size_t guess) const;

  void clear();
  int traverse(visitproc visit, void* arg) const;

 private:
  std::vector<BoundParameter> all_;
  std::vector<std::pair<std::size_t, PyObject*>> known_;      // parameters with their groups; kept alive by all_
  std::vector<std::pair<PyObject*, PyObject*>> known_state_;  // kept alive by all_, or never dereferenced
  WatchedDict state_;                                         // optimizer.state
  std::uint64_t state_version_ = 0;
  bool state_is_known_ = false;
};

}  // namespace clr
