#include "cpu/bulk.h"

#include <algorithm>

#include "cpu/parallel.h"

namespace clr {

namespace {

// Fewer values than this are computed before a second thread wakes up.
constexpr int64_t kSerialValues = 32 * 1024;

struct BulkContext {
  const std::vector<BulkRow>& rows;
  const BulkSteps& steps;
  const CpuKernels& kernels;
  int parts;
};

// Columns begin to end of one row.
struct Columns {
  const BulkRow& row;
  int64_t begin, end;

  int64_t size() const { return end - begin; }
  const double* custom() const { return row.custom == nullptr ? nullptr : row.custom + begin; }
  double* lr() const { return row.lr + begin; }
  double* momentum() const { return row.momentum + begin; }
};

// Fills the values of consecutive steps from `step` on. All of them belong to the piece.
void fill_piece(const Piece& piece, uint64_t step, const Columns& columns, const CpuKernels& kernels) {
  const uint64_t own = step_in(piece, step);
  const auto moving = static_cast<int64_t>(std::min(piece.last - own, static_cast<uint64_t>(columns.size() - 1))) + 1;
  kernels.fill_range(piece.policy, own, moving, columns.custom(), columns.lr(), columns.momentum());
  std::fill(columns.lr() + moving, columns.lr() + columns.size(), columns.lr()[moving - 1]);
  std::fill(columns.momentum() + moving, columns.momentum() + columns.size(), columns.momentum()[moving - 1]);
}

void fill_consecutive(uint64_t first, const Columns& columns, const CpuKernels& kernels) {
  const BulkRow& row = columns.row;
  for (int64_t i = columns.begin; i < columns.end;) {
    const uint64_t step = first + static_cast<uint64_t>(i);
    const Piece& piece = piece_at(row.pieces, row.count, step);
    const Piece* const next = &piece + 1;
    int64_t stop = columns.end;
    if (next != row.pieces + row.count) stop = std::min(stop, i + static_cast<int64_t>(next->first - step));
    fill_piece(piece, step, {row, i, stop}, kernels);
    i = stop;
  }
}

void fill_scattered(const BulkSteps& steps, const Columns& columns, const CpuKernels& kernels) {
  const BulkRow& row = columns.row;
  for (int64_t i = columns.begin; i < columns.end; ++i) {
    const Piece& piece = piece_at(row.pieces, row.count, steps[i]);
    const double custom = row.custom == nullptr ? 1.0 : row.custom[i];
    const Value value = kernels.evaluate(piece.policy, step_in(piece, steps[i]), custom);
    row.lr[i] = value.lr;
    row.momentum[i] = value.momentum;
  }
}

void fill_columns(const BulkSteps& steps, const Columns& columns, const CpuKernels& kernels) {
  if (steps.array == nullptr) return fill_consecutive(steps.first, columns, kernels);
  return fill_scattered(steps, columns, kernels);
}

// Fills one part. The rows, one after another, are cut into `parts` runs of equal length.
void fill_part(int part, void* context) {
  const BulkContext& bulk = *static_cast<const BulkContext*>(context);
  const int64_t count = bulk.steps.count;
  const int64_t total = count * static_cast<int64_t>(bulk.rows.size());
  const int64_t end = part + 1 == bulk.parts ? total : total / bulk.parts * (part + 1);
  for (int64_t i = total / bulk.parts * part; i < end;) {
    const int64_t row = i / count;
    const int64_t stop = std::min(end, (row + 1) * count);
    fill_columns(bulk.steps, {bulk.rows[static_cast<std::size_t>(row)], i - row * count, stop - row * count},
                 bulk.kernels);
    i = stop;
  }
}

}  // namespace

bool fill(const std::vector<BulkRow>& rows, const BulkSteps& steps, const CpuKernels& kernels) {
  const int64_t total = steps.count * static_cast<int64_t>(rows.size());
  if (total == 0) return true;
  BulkContext context = {rows, steps, kernels, total < kSerialValues ? 1 : thread_count()};
  return run_parts(context.parts, fill_part, &context);
}

BulkPlace first_invalid(const std::vector<BulkRow>& rows, const BulkSteps& steps) {
  for (std::size_t g = 0; g < rows.size(); ++g) {
    const BulkRow& row = rows[g];
    const Piece* const end = row.pieces + row.count;
    if (std::none_of(row.pieces, end, [](const Piece& piece) { return may_leave_bounds(piece.policy); })) continue;
    for (int64_t i = 0; i < steps.count; ++i) {
      const Value value = {row.lr[i], row.momentum[i]};
      if (!is_valid(row.pieces, row.count, steps[i], value)) return {static_cast<int64_t>(g), i};
    }
  }
  return {-1, -1};
}

}  // namespace clr
