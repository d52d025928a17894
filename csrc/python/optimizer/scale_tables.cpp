#include "python/optimizer/scale_tables.h"

#include <algorithm>
#include <map>
#include <utility>

namespace clr {

namespace {

constexpr std::uint64_t kCyclesAhead = 64, kIterationsAhead = 1024;

// The numbers that updates of all groups need of one piece's function: from low to high now, below `end` ever.
struct Need {
  py::object scale_fn;
  std::uint64_t low, high, end;
};

// Adds what a group needs of the pieces of its schedule.
void add_needs(const BoundGroup& group, std::map<const Piece*, Need>& needs) {
  const GroupSettings& settings = group.settings();
  for (std::size_t i = 0; i < settings.piece_count; ++i) {
    const Piece& piece = settings.pieces[i];
    if (piece.policy.mode != Mode::custom) continue;
    const std::uint64_t step = std::max(group.progress().step, piece.first);
    const std::uint64_t now = scale_argument(piece.policy, step_in(piece, step));
    const std::uint64_t end = scale_argument(piece.policy, piece.last) + 1;
    const auto [place, is_new] = needs.try_emplace(&piece, Need{group.scale_fn(i), now, now, end});
    place->second.low = std::min(place->second.low, now);
    place->second.high = std::max(place->second.high, now);
  }
}

std::uint64_t ahead(const Piece& piece) { return piece.policy.custom_by_cycle ? kCyclesAhead : kIterationsAhead; }

bool serves(const TabulatedScales& table, const Need& need) {
  const std::uint64_t half = std::min(need.end, need.high + ahead(*table.piece) / 2);
  return table.first <= need.low && (table.ends ? need.high : half - 1) < table.first + table.scales.size();
}

TabulatedScales tabulated(const Piece& piece, const Need& need) {
  TabulatedScales table{&piece, need.low, {}, false};
  for (std::uint64_t n = need.low; n < std::min(need.end, need.high + ahead(piece)); ++n) {
    try {
      table.scales.push_back(called_scale(n, need.scale_fn));
    } catch (py::error_already_set& error) {
      if (n <= need.high || !error.matches(PyExc_Exception)) throw;
      table.ends = true;
      break;
    } catch (const py::type_error&) {  // no number
      if (n <= need.high) throw;
      table.ends = true;
      break;
    }
  }
  return table;
}

}  // namespace

bool ScaleTables::refill(const BoundGroups& groups) {
  std::map<const Piece*, Need> needs;
  for (const auto& group : groups) {
    if (group->calls_back()) add_needs(*group, needs);
  }
  bool serve = needs.size() == tables_.size();
  for (std::size_t i = 0; serve && i < tables_.size(); ++i) {
    const auto need = needs.find(tables_[i].piece);
    serve = need != needs.end() && need->second.scale_fn.is(functions_[i]) && serves(tables_[i], need->second);
  }
  if (serve) return false;
  std::vector<TabulatedScales> tables;
  std::vector<py::object> functions;
  tables.reserve(needs.size());
  functions.reserve(needs.size());
  for (const auto& [piece, need] : needs) {
    tables.push_back(tabulated(*piece, need));
    functions.push_back(need.scale_fn);
  }
  std::swap(tables_, tables);
  std::swap(functions_, functions);
  ++version_;
  return true;
}

int ScaleTables::traverse(visitproc visit, void* arg) const {
  for (const py::object& function : functions_) Py_VISIT(function.ptr());
  return 0;
}

void ScaleTables::clear() {
  tables_.clear();
  std::vector<py::object> functions;
  std::swap(functions_, functions);
}

}  // namespace clr
