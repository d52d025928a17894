#include "python/optimizer/groups.h"

#include <unordered_set>
#include <utility>

#include "python/torch/group_keys.h"

namespace clr {

namespace {

py::dict group_at(const py::list& groups, std::size_t index) {
  PyObject* const group = PyList_GET_ITEM(groups.ptr(), static_cast<Py_ssize_t>(index));
  if (!PyDict_Check(group)) throw py::type_error(group_label(index) + "must be a dict");
  return py::reinterpret_borrow<py::dict>(group);
}

void require_different(const py::list& groups) {
  std::unordered_set<PyObject*> dicts;
  for (const py::handle group : groups) {
    if (!dicts.insert(group.ptr()).second) {
      throw py::value_error("param_groups holds the same dict twice: every group must be a dict of its own");
    }
  }
}

// Replaces schedules in dicts. The destructor puts the former ones back unless keep() was called.
class WrittenSchedules {
 public:
  WrittenSchedules() = default;
  WrittenSchedules(const WrittenSchedules&) = delete;
  WrittenSchedules& operator=(const WrittenSchedules&) = delete;
  ~WrittenSchedules() {
    for (const auto& [group, schedule] : before_) {
      if (PyDict_SetItem(group.ptr(), keys().schedule, schedule.ptr()) != 0) PyErr_Clear();
    }
  }

  void replace(const py::dict& group, const py::object& schedule, std::size_t index) {
    const GroupReader reader = {group.ptr(), index};
    before_.emplace_back(group, reader.item(keys().schedule));
    set_group_item(group.ptr(), keys().schedule, schedule);
  }
  void keep() { before_.clear(); }

 private:
  std::vector<std::pair<py::dict, py::object>> before_;
};

}  // namespace

BoundGroups::BoundGroups(const py::list& groups, const py::list& schedules, const std::vector<bool>& obeyed) {
  if (schedules.size() != groups.size() || obeyed.size() != groups.size()) {
    throw py::value_error("groups, schedules and obeyed must be as many");
  }
  for (std::size_t i = 0; i < groups.size(); ++i) {
    place(i, std::make_unique<BoundGroup>(group_at(groups, i), i, py::reinterpret_borrow<py::object>(schedules[i])));
  }
  for (std::size_t i = 0; i < all_.size(); ++i) {
    if (obeyed[i]) all_[i]->check_values();
  }
  for (std::size_t i = 0; i < all_.size(); ++i) {
    if (!obeyed[i]) all_[i]->write_schedule();
  }
}

void BoundGroups::append(py::dict group, py::object schedule, bool is_obeyed) {
  auto bound = std::make_unique<BoundGroup>(std::move(group), all_.size(), std::move(schedule));
  is_obeyed ? bound->check_values() : bound->write_schedule();
  place(all_.size(), std::move(bound));
}

void BoundGroups::place(std::size_t index, std::unique_ptr<BoundGroup> bound) {
  if (index >= all_.size()) all_.resize(index + 1);
  places_[bound->group()] = index;
  all_[index] = std::move(bound);
}

void BoundGroups::keep_ids(const BoundGroups& before) {
  for (const auto& group : all_) {
    const BoundGroup* const known = before.find(py::reinterpret_borrow<py::dict>(group->group()));
    if (known != nullptr) group->keep_id(*known);
  }
}

BoundGroup* BoundGroups::find(const py::dict& group) const {
  const auto place = places_.find(group.ptr());
  return place == places_.end() ? nullptr : all_[place->second].get();
}

void BoundGroups::rebind(const py::list& param_groups, const py::object& read_schedule) {
  // The list may change while schedules are made.
  const py::list groups = py::reinterpret_steal<py::list>(PyList_GetSlice(param_groups.ptr(), 0, PY_SSIZE_T_MAX));
  require_different(groups);
  reorder(groups);
  WrittenSchedules written;
  std::vector<std::size_t> replaced;
  std::vector<std::unique_ptr<BoundGroup>> fresh(groups.size());
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const py::dict group = group_at(groups, i);
    const BoundGroup* const known = i < all_.size() ? all_[i].get() : nullptr;
    if (known != nullptr && all_[i]->is_bound_to(group.ptr())) continue;
    const py::object schedule = read_schedule(group, known != nullptr ? known->schedule() : py::object(py::none()));
    if (known != nullptr) replaced.push_back(i);
    written.replace(group, schedule.attr("_to_dict")(), i);
    fresh[i] = std::make_unique<BoundGroup>(group, i, schedule);
    if (known != nullptr) fresh[i]->keep_id(*known);
  }
  written.keep();
  for (std::size_t i = 0; i < fresh.size(); ++i) {
    if (fresh[i] != nullptr) place(i, std::move(fresh[i]));
  }
  for (const std::size_t i : replaced) all_[i]->write_schedule();
}

void BoundGroups::reorder(const py::list& groups) {
  std::vector<std::unique_ptr<BoundGroup>> ordered(groups.size());
  std::unordered_map<PyObject*, std::size_t> places;
  for (std::size_t i = 0; i < ordered.size(); ++i) {
    PyObject* const group = PyList_GET_ITEM(groups.ptr(), static_cast<Py_ssize_t>(i));
    const auto place = places_.find(group);
    if (place == places_.end() || all_[place->second] == nullptr) continue;
    ordered[i] = std::move(all_[place->second]);
    ordered[i]->set_index(i);
    places[group] = i;
  }
  all_ = std::move(ordered);
  places_ = std::move(places);
}

std::vector<std::uint64_t> BoundGroups::position_versions() const {
  std::vector<std::uint64_t> versions;
  versions.reserve(all_.size());
  for (const auto& group : all_) versions.push_back(group == nullptr ? 0 : group->position_version());
  return versions;
}

int BoundGroups::traverse(visitproc visit, void* arg) const {
  for (const auto& group : all_) {
    if (group == nullptr) continue;
    if (const int stop = group->traverse(visit, arg)) return stop;
  }
  return 0;
}

void BoundGroups::clear() {
  all_.clear();
  places_.clear();
}

}  // namespace clr
