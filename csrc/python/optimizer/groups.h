// The parameter groups of an optimizer, each bound to its schedule, in the order of param_groups.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <unordered_map>
#include <vector>

#include "python/optimizer/group.h"

namespace clr {

class BoundGroups {
 public:
  BoundGroups() = default;

  // Binds these groups to these schedules. If a group is obeyed, the lr and momentum in it are checked and stay.
  // Otherwise the schedule's values are written into it, once all groups have been bound.
  BoundGroups(const py::list& groups, const py::list& schedules, const std::vector<bool>& obeyed);

  // Binds one more group in the same way.
  void append(py::dict group, py::object schedule, bool is_obeyed);

  // Brings the groups into the order of the list, and binds those whose dict or schedule is not the one that was bound.
  // A group keeps its binding when its place in the list changes. The lr and momentum in a dict never seen before are
  // obeyed; a new schedule overwrites them with its own. If this throws, every dict is as before. `read_schedule(group,
  // known)` returns the schedule of a group; `known`: the schedule that was bound, or None.
  void rebind(const py::list& param_groups, const py::object& read_schedule);

  // Dicts that were bound before keep their numbers.
  void keep_ids(const BoundGroups& before);

  // Returns the binding of this dict, or null if there is none.
  BoundGroup* find(const py::dict& group) const;

  // Asks for the memory of groups to come, in stages: the group itself, its dict and list, the parameters in the list.
  CLR_INLINE_MEMBER void prefetch(std::size_t index) const {
    if (index + 2 * kApart < all_.size() && all_[index + 2 * kApart]) prefetch_object(*all_[index + 2 * kApart]);
    if (index + kApart < all_.size() && all_[index + kApart]) all_[index + kApart]->prefetch_dict();
    if (all_[index]) all_[index]->prefetch_parameters();
  }
  // The same for write(): entries instead of the dict, which has been read in the same step.
  CLR_INLINE_MEMBER void prefetch_to_write(std::size_t index) const {
    if (index + 2 * kApart < all_.size()) prefetch_object(*all_[index + 2 * kApart]);
    if (index + kApart < all_.size()) all_[index + kApart]->prefetch_entries();
  }

  // Returns null for a group that is not bound.
  const std::unique_ptr<BoundGroup>& operator[](std::size_t index) const { return all_[index]; }
  const BoundGroup& front() const { return *all_.front(); }
  std::size_t size() const { return all_.size(); }
  bool empty() const { return all_.empty(); }
  auto begin() const { return all_.begin(); }
  auto end() const { return all_.end(); }

  // Returns the position versions of all groups, with 0 for a group that is not bound.
  std::vector<std::uint64_t> position_versions() const;

  int traverse(visitproc visit, void* arg) const;
  void clear();

 private:
  void reorder(const py::list& groups);
  void place(std::size_t index, std::unique_ptr<BoundGroup> bound);

  static constexpr std::size_t kApart = 4;  // groups between two stages of a prefetch

  std::vector<std::unique_ptr<BoundGroup>> all_;
  std::unordered_map<PyObject*, std::size_t> places_;  // of their dicts in all_
};

}  // namespace clr
