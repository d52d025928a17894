#include "cpu/norm.h"

#include <algorithm>

#include "cpu/parallel.h"

namespace clr {

namespace {

// Below this many bytes of parameters, waking a second thread costs more than it saves. Measured with AVX-512, one and
// two threads take the same time at 50 KiB for sums, and at 200 KiB for the faster search for infinities.
constexpr std::int64_t kSerialBytes = 64 * 1024, kSerialBytesOfCheck = 256 * 1024;

struct NormContext {
  const StepPlan& plan;
  const CpuKernels& kernels;
  bool squares;  // False if only finiteness is checked
  double limit;
  Norms& norms;
};

bool measures_parameter(const NormContext& pass, const Slot& slot) {
  return pass.squares && slot.trusted && slot.gradient != nullptr;
}

std::size_t chunks_of(const Slot& slot) { return static_cast<std::size_t>(norm_chunks(slot.size)); }

NormPart of_gradient(const NormContext& pass, const Slot& slot, std::int64_t begin, std::int64_t end) {
  if (slot.gradient == nullptr) return {};
  if (pass.squares) return pass.kernels.sum_squares(slot.gradient, slot.gradient_dtype, begin, end, pass.limit);
  return {{0.0, 0.0}, pass.kernels.all_finite(slot.gradient, slot.gradient_dtype, begin, end)};
}

NormPart of_parameter(const NormContext& pass, const Slot& slot, std::int64_t begin, std::int64_t end) {
  const Numbers weight = weight_of(slot);
  return pass.kernels.sum_squares(weight.array, weight.dtype, begin, end, 0.0);
}

// Measures the chunks from `chunk` up to `last` of a slot.
void measure_chunks(const NormContext& pass, std::size_t i, std::size_t chunk, std::size_t last) {
  const Slot& slot = pass.plan.slots[i];
  NormPart* const gradient = pass.norms.parts.data() + pass.norms.first_chunks[i];
  NormPart* const parameter = gradient + pass.norms.chunk_count;
  for (; chunk < last; ++chunk) {
    const std::int64_t begin = static_cast<std::int64_t>(chunk) * kNormChunk;
    const std::int64_t end = std::min(begin + kNormChunk, slot.size);
    gradient[chunk] = of_gradient(pass, slot, begin, end);
    if (measures_parameter(pass, slot)) parameter[chunk] = of_parameter(pass, slot, begin, end);
  }
}

// Returns the first chunk behind a cut. A chunk that a cut falls into belongs to the part behind the cut.
std::size_t chunk_at(Cut cut) { return static_cast<std::size_t>(cut.element / kNormChunk); }

void run_part(int part, void* context) {
  const NormContext& pass = *static_cast<const NormContext*>(context);
  const std::vector<Slot>& slots = pass.plan.slots;
  const Cut from = pass.norms.cuts[static_cast<std::size_t>(part)];
  const Cut to = pass.norms.cuts[static_cast<std::size_t>(part) + 1];
  std::size_t chunk = chunk_at(from);
  for (std::size_t i = from.slot; i < slots.size() && i <= to.slot; ++i, chunk = 0) {
    const std::size_t chunks = chunks_of(slots[i]);
    measure_chunks(pass, i, chunk, i == to.slot ? std::min(chunk_at(to), chunks) : chunks);
  }
}

void lay_out(const NormContext& pass) {
  Norms& norms = pass.norms;
  norms.first_chunks.clear();
  norms.chunk_count = 0;
  bool measures_any = false;
  for (const Slot& slot : pass.plan.slots) {
    norms.first_chunks.push_back(norms.chunk_count);
    norms.chunk_count += chunks_of(slot);
    measures_any = measures_any || measures_parameter(pass, slot);
  }
  norms.parts.resize(norms.chunk_count * (measures_any ? 2 : 1));
  norms.slots.assign(pass.plan.slots.size(), {0.0, 0.0});
}

double norm_of(const NormPart* parts, std::size_t count) { return square_root(combined(parts, count).squares).hi; }

void combine(const NormContext& pass) {
  Norms& norms = pass.norms;
  norms.total = combined(norms.parts.data(), norms.chunk_count);
  for (std::size_t i = 0; i < pass.plan.slots.size(); ++i) {
    const Slot& slot = pass.plan.slots[i];
    const NormPart* const gradient = norms.parts.data() + norms.first_chunks[i];
    if (!measures_parameter(pass, slot)) continue;
    norms.slots[i] = {norm_of(gradient + norms.chunk_count, chunks_of(slot)), norm_of(gradient, chunks_of(slot))};
  }
}

bool run(NormContext pass) {
  lay_out(pass);
  const bool serial = pass.plan.parameter_bytes() < (pass.squares ? kSerialBytes : kSerialBytesOfCheck);
  const int parts = serial ? 1 : thread_count();
  pass.plan.cut(parts, pass.norms.cuts);
  if (!run_parts(parts, run_part, &pass)) return false;
  combine(pass);
  return true;
}

}  // namespace

bool run_norms(const StepPlan& plan, const CpuKernels& kernels, double limit, Norms& norms) {
  return run({plan, kernels, true, limit, norms});
}

bool run_finite_check(const StepPlan& plan, const CpuKernels& kernels, Norms& norms) {
  return run({plan, kernels, false, 0.0, norms});
}

}  // namespace clr
