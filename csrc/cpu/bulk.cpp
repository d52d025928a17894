#include "cpu/bulk.h"

#include <algorithm>

#include "cpu/parallel.h"

namespace clr {

namespace {

// Fewer values than this are done before a second thread wakes up.
constexpr int64_t kSerialValues = 32 * 1024;

struct BulkContext {
  const std::vector<BulkRow>& rows;
  const BulkSteps& steps;
  const CpuKernels& kernels;
  int parts;
};

// Columns begin to end of one row.
void fill_columns(const BulkRow& row, const BulkSteps& steps, const CpuKernels& kernels, int64_t begin, int64_t end) {
  const double* const custom = row.custom == nullptr ? nullptr : row.custom + begin;
  if (steps.array == nullptr) {
    kernels.fill_range(row.policy, steps.first + static_cast<uint64_t>(begin), end - begin, custom, row.lr + begin,
                       row.momentum + begin);
  } else {
    kernels.fill_steps(row.policy, steps.array + begin, end - begin, custom, row.lr + begin, row.momentum + begin);
  }
}

// The rows, one after another, are cut into `parts` runs of equal length.
void fill_part(int part, void* context) {
  const BulkContext& bulk = *static_cast<const BulkContext*>(context);
  const int64_t count = bulk.steps.count;
  const int64_t total = count * static_cast<int64_t>(bulk.rows.size());
  const int64_t end = part + 1 == bulk.parts ? total : total / bulk.parts * (part + 1);
  for (int64_t i = total / bulk.parts * part; i < end;) {
    const int64_t row = i / count;
    const int64_t stop = std::min(end, (row + 1) * count);
    fill_columns(bulk.rows[static_cast<std::size_t>(row)], bulk.steps, bulk.kernels, i - row * count,
                 stop - row * count);
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

BulkPlace first_invalid(const std::vector<BulkRow>& rows, int64_t count) {
  for (std::size_t g = 0; g < rows.size(); ++g) {
    const BulkRow& row = rows[g];
    if (!may_leave_bounds(row.policy)) continue;
    const bool has_momentum = row.policy.base_momentum == row.policy.base_momentum;
    for (int64_t i = 0; i < count; ++i) {
      if (!is_valid_lr(row.lr[i]) || (has_momentum && !is_valid_momentum(row.momentum[i]))) {
        return {static_cast<int64_t>(g), i};
      }
    }
  }
  return {-1, -1};
}

}  // namespace clr
