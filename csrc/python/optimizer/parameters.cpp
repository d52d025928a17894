#include "python/optimizer/parameters.h"

#include <algorithm>
#include <string>

namespace clr {

bool BoundParameters::is_known(const BoundGroups& groups) const {
  std::size_t position = 0;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    PyObject* const parameters = groups[g]->parameters();
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(parameters); ++i, ++position) {
      if (position >= known_.size() || known_[position].first != g ||
          known_[position].second != PyList_GET_ITEM(parameters, i)) {
        return false;
      }
    }
  }
  return position == known_.size();
}

void BoundParameters::bind(const BoundGroups& groups) {
  std::vector<BoundParameter> fresh;
  std::vector<std::pair<std::size_t, PyObject*>> known;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    PyObject* const parameters = groups[g]->parameters();
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(parameters); ++i) {
      PyObject* const parameter = PyList_GET_ITEM(parameters, i);
      if (!TorchReader::get().is_tensor(parameter)) {
        throw py::type_error(parameter_name(g, static_cast<std::size_t>(i)) + ": type=" + Py_TYPE(parameter)->tp_name +
                             " must be a torch.Tensor");
      }
      fresh.emplace_back(py::reinterpret_borrow<py::object>(parameter), static_cast<std::uint32_t>(g),
                         static_cast<std::size_t>(i), known.size());
      known.emplace_back(g, parameter);
    }
  }
  all_ = std::move(fresh);
  known_ = std::move(known);
  known_state_.clear();
  state_is_known_ = false;
}

// Compares the entries in their order, which is far cheaper than hashing every tensor.
void BoundParameters::refresh_state(const py::dict& state) {
  if (state_.ptr() != state.ptr()) state_ = WatchedDict(state);
  const std::uint64_t version = state_.version();
  if (state_is_known_ && version != 0 && version == state_version_) return;
  Py_ssize_t place = 0;
  PyObject *key = nullptr, *value = nullptr;
  std::size_t i = 0;
  bool same = state_is_known_;
  while (same && PyDict_Next(state.ptr(), &place, &key, &value)) {
    same = i < known_state_.size() && known_state_[i].first == key && known_state_[i].second == value;
    ++i;
  }
  state_version_ = version;
  if (same && i == known_state_.size()) return;
  state_is_known_ = false;  // until all entries are read
  known_state_.clear();
  place = 0;
  while (PyDict_Next(state.ptr(), &place, &key, &value)) known_state_.emplace_back(key, value);
  for (BoundParameter& parameter : all_) {
    PyObject* const entry = PyDict_GetItemWithError(state.ptr(), parameter.parameter().ptr());
    if (entry == nullptr && PyErr_Occurred()) throw py::error_already_set();
    if (entry != nullptr && !PyDict_Check(entry)) throw py::type_error("optimizer.state must hold dicts");
    parameter.bind_state(entry);
  }
  state_is_known_ = true;
}

void BoundParameters::make_entries(const py::dict& state, const std::vector<std::size_t>& positions) {
  for (const std::size_t position : positions) {
    if (PyDict_SetDefault(state.ptr(), all_[position].parameter().ptr(), py::dict().ptr()) == nullptr) {
      throw py::error_already_set();
    }
  }
  forget_state();
  refresh_state(state);
}

void BoundParameters::drop_empty_entries(const py::dict& state, const std::vector<std::size_t>& positions) {
  if (positions.empty()) return;
  forget_state();
  for (const std::size_t position : positions) {
    PyObject* const parameter = all_[position].parameter().ptr();
    PyObject* const entry = PyDict_GetItemWithError(state.ptr(), parameter);
    if (entry == nullptr && PyErr_Occurred()) throw py::error_already_set();
    if (entry == nullptr || !PyDict_Check(entry) || PyDict_GET_SIZE(entry) != 0) continue;
    if (PyDict_DelItem(state.ptr(), parameter) != 0) throw py::error_already_set();
  }
}

void BoundParameters::take_out(const py::dict& state, const std::vector<std::size_t>& positions, const char* key) {
  for (const std::size_t position : positions) {
    const py::object parameter = all_[position].parameter();
    if (!state.contains(parameter)) continue;
    const py::dict entry = state[parameter];
    if (entry.contains(key)) PyDict_DelItemString(entry.ptr(), key);
    if (entry.empty()) PyDict_DelItem(state.ptr(), parameter.ptr());
    forget_state();
  }
}

std::size_t BoundParameters::find(const py::object& parameter, std::size_t guess) const {
  const auto is_it = [&](const auto& known) { return known.second == parameter.ptr(); };
  if (guess < known_.size() && is_it(known_[guess])) return guess;
  const auto found = std::find_if(known_.begin(), known_.end(), is_it);
  if (found == known_.end()) throw py::value_error("a released gradient belongs to no parameter of the optimizer");
  return static_cast<std::size_t>(found - known_.begin());
}

void BoundParameters::clear() {
  all_.clear();
  known_.clear();
  known_state_.clear();
  state_ = {};
}

int BoundParameters::traverse(visitproc visit, void* arg) const {
  Py_VISIT(state_.ptr());
  for (const BoundParameter& parameter : all_) {
    if (const int stop = parameter.traverse(visit, arg)) return stop;
  }
  return 0;
}

}  // namespace clr
