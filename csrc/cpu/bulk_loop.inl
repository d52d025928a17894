// Arrays of schedule values: straight loops over one half of a cycle, or a ramp, which compilers vectorise.
#include "cpu/kernels.h"

namespace clr {
namespace {

enum class ScaleKind { whole, per_cycle, power_of_step, linear };

// Powers gamma^n for up to kPowerBlock values of n.
struct PowerTable {
  double hi[kPowerBlock], lo[kPowerBlock];
  int64_t exponent[kPowerBlock];

  Exponential operator[](int32_t i) const { return {{hi[i], lo[i]}, exponent[i]}; }
};

void fill_table(const Policy& policy, uint64_t first, uint64_t stride, int32_t count, PowerTable& table) {
  const DoubleDouble log_gamma = policy.log_gamma;
  for (int32_t i = 0; i < count; ++i) {
    const Exponential power = power_of(log_gamma, first + static_cast<uint64_t>(i) * stride);
    table.hi[i] = power.minus_one.hi;
    table.lo[i] = power.minus_one.lo;
    table.exponent[i] = power.exponent;
  }
}

// One half of one cycle, or part of it: `done` of `steps` steps of the half lie before the first value.
struct Segment {
  bool rising;
  double done, steps;
  uint64_t first_step;
  Scale scale;              // ScaleKind::per_cycle
  const PowerTable* table;  // ScaleKind::power_of_step: gamma^r for r below kPowerBlock
};

// A block of steps that share a power: gamma to the first of them, which is value number `offset` (may be negative).
struct PowerBlock {
  Exponential power;
  int32_t offset;
};

template <ScaleKind kind>
CLR_INLINE auto scale_in(const Policy& policy, const Segment& segment, const PowerBlock& block, int32_t i) {
  if constexpr (kind == ScaleKind::whole) {
    return FullAmplitude{};
  } else if constexpr (kind == ScaleKind::power_of_step) {
    return power_scale(product(block.power, (*segment.table)[i - block.offset]));
  } else if constexpr (kind == ScaleKind::linear) {
    return linear_scale(policy, segment.first_step + static_cast<uint64_t>(i));
  } else {
    return segment.scale;
  }
}

// Computes values begin to end of a segment. With power_of_step they must lie in this block.
template <bool rising, Window window, ScaleKind kind, bool plain>
CLR_INLINE void fill_run(const Policy& policy, const Segment& segment, const PowerBlock& block, int32_t begin,
                         int32_t end, double* __restrict lr, double* __restrict momentum) {
  const Policy p = policy;
  const Segment s = segment;
  for (int32_t i = begin; i < end; ++i) {
    const double done = s.done + i;
    const Phase phase = rising ? rising_phase(done, s.steps) : falling_phase(done, s.steps);
    const Value value = value_at<plain>(p, window, phase, scale_in<kind>(p, s, block, i));
    lr[i] = value.lr;
    momentum[i] = value.momentum;
  }
}

template <bool rising, Window window, ScaleKind kind, bool plain>
void fill_half(const Policy& policy, const Segment& segment, int32_t count, double* lr, double* momentum) {
  if constexpr (kind != ScaleKind::power_of_step) {
    return fill_run<rising, window, kind, plain>(policy, segment, {}, 0, count, lr, momentum);
  }
  constexpr auto size = static_cast<int32_t>(kPowerBlock);
  const auto before = static_cast<int32_t>(segment.first_step % kPowerBlock);  // steps of the first block
  PowerTable blocks;
  for (int32_t offset = -before, i = 0; offset < count; ++i, offset += size) {
    if (i % size == 0) {
      const int32_t left = (count - offset + size - 1) / size;
      const uint64_t first = segment.first_step + static_cast<uint64_t>(offset);
      fill_table(policy, first, kPowerBlock, left < size ? left : size, blocks);
    }
    const int32_t begin = offset < 0 ? 0 : offset;
    const int32_t end = count - offset < size ? count : offset + size;
    fill_run<rising, window, kind, plain>(policy, segment, {blocks[i % size], offset}, begin, end, lr, momentum);
  }
}

template <Window window, ScaleKind kind, bool plain>
void fill_segment(const Policy& policy, const Segment& segment, int32_t count, double* lr, double* momentum) {
  return segment.rising ? fill_half<true, window, kind, plain>(policy, segment, count, lr, momentum)
                        : fill_half<false, window, kind, plain>(policy, segment, count, lr, momentum);
}

using FillSegment = void (*)(const Policy&, const Segment&, int32_t, double*, double*);

template <Window window, bool plain>
FillSegment segment_filler(Mode mode) {
  return mode == Mode::constant        ? fill_segment<window, ScaleKind::whole, true>
         : mode == Mode::power_of_step ? fill_segment<window, ScaleKind::power_of_step, plain>
         : mode == Mode::linear        ? fill_segment<window, ScaleKind::linear, plain>
                                       : fill_segment<window, ScaleKind::per_cycle, plain>;
}

template <Window window>
FillSegment segment_filler(const Policy& policy) {
  return stays_in_bounds(policy) ? segment_filler<window, true>(policy.mode)
                                 : segment_filler<window, false>(policy.mode);
}

// Chooses one of three loops, by the window that each was compiled for.
template <class Fill>
Fill of_window(Window window, Fill triangular, Fill welch, Fill hann) {
  switch (window) {
    case Window::triangular:
      return triangular;
    case Window::welch:
      return welch;
    case Window::hann:
      return hann;
  }
  return nullptr;  // a window that no policy has
}

FillSegment segment_filler(const Policy& policy) {
  return of_window(policy.window, segment_filler<Window::triangular>(policy), segment_filler<Window::welch>(policy),
                   segment_filler<Window::hann>(policy));
}

// Computes `count` values of a ramp from its step `first` on, which is a whole number.
template <CurveKind curve, Window window>
void fill_ramp(const Policy& policy, double first, int32_t count, double* __restrict lr, double* __restrict momentum) {
  const Policy p = policy;
  for (int32_t i = 0; i < count; ++i) {
    const Value value = ramp_value(p, curve, window, first + i);
    lr[i] = value.lr;
    momentum[i] = value.momentum;
  }
}

using FillRamp = void (*)(const Policy&, double, int32_t, double*, double*);

template <CurveKind curve>
FillRamp ramp_filler(Window window) {
  return of_window<FillRamp>(window, fill_ramp<curve, Window::triangular>, fill_ramp<curve, Window::welch>,
                             fill_ramp<curve, Window::hann>);
}

FillRamp ramp_filler(const Policy& policy) {
  return policy.curve == CurveKind::rise   ? ramp_filler<CurveKind::rise>(policy.window)
         : policy.curve == CurveKind::fall ? ramp_filler<CurveKind::fall>(policy.window)
                                           : fill_ramp<CurveKind::exponential, Window::triangular>;
}

Value evaluate_one(const Policy& policy, uint64_t step, double custom) { return evaluate(policy, step, custom); }

template <bool plain, class AnyScale>
void evaluate_all(const Policy* policies, int64_t count, Phase w, AnyScale scale, Value* values) {
  for (int64_t i = 0; i < count; ++i) values[i] = value_of<plain>(policies[i], w, scale);
}

void evaluate_alike(const Policy* policies, int64_t count, uint64_t step, Value* values) {
  const Policy& first = policies[0];
  const Position at = position_of(first, step);
  const Phase w = windowed(first.window, phase_of(first, at.step_in_cycle));
  if (first.mode == Mode::constant) return evaluate_all<true>(policies, count, w, FullAmplitude{}, values);
  evaluate_all<false>(policies, count, w, scale_of(first, step, at.cycle, 1.0), values);
}

void put(const Policy& policy, uint64_t step, double custom, double* lr, double* momentum) {
  const Value value = evaluate_one(policy, step, custom);
  *lr = value.lr;
  *momentum = value.momentum;
}

constexpr int64_t kLongestRun = int64_t{1} << 30;  // fits an int32_t, which vector conversions need

void fill_ramps(const Policy& policy, uint64_t first, int64_t count, double* lr, double* momentum) {
  const FillRamp fill = ramp_filler(policy);
  for (int64_t i = 0; i < count; i += kLongestRun) {
    const int64_t n = count - i < kLongestRun ? count - i : kLongestRun;
    fill(policy, ramp_step(first + static_cast<uint64_t>(i)), static_cast<int32_t>(n), lr + i, momentum + i);
  }
}

// Computes the values of consecutive steps, one half of a cycle at a time.
void fill_segments(const Policy& policy, uint64_t first, int64_t count, double* lr, double* momentum) {
  const FillSegment fill = segment_filler(policy);
  PowerTable table;
  if (policy.mode == Mode::power_of_step) fill_table(policy, 0, 1, static_cast<int32_t>(kPowerBlock), table);
  for (int64_t i = 0; i < count;) {
    const uint64_t step = first + static_cast<uint64_t>(i);
    const Position at = position_of(policy, step);
    const bool rising = at.step_in_cycle < policy.up;
    const uint64_t done = rising ? at.step_in_cycle : at.step_in_cycle - policy.up;
    const uint64_t steps = rising ? policy.up : policy.down;
    int64_t n = count - i < kLongestRun ? count - i : kLongestRun;
    if (steps - done < static_cast<uint64_t>(n)) n = static_cast<int64_t>(steps - done);
    const Scale scale = scale_is_per_cycle(policy.mode) ? scale_of(policy, step, at.cycle, 1.0) : custom_scale(1.0);
    fill(policy, {rising, static_cast<double>(done), static_cast<double>(steps), step, scale, &table},
         static_cast<int32_t>(n), lr + i, momentum + i);
    i += n;
  }
}

void fill_range(const Policy& policy, uint64_t first, int64_t count, const double* custom, double* lr,
                double* momentum) {
  if (policy.curve != CurveKind::cycles) return fill_ramps(policy, first, count, lr, momentum);
  if (policy.mode == Mode::custom) {
    for (int64_t i = 0; i < count; ++i) {
      put(policy, first + static_cast<uint64_t>(i), custom[i], lr + i, momentum + i);
    }
    return;
  }
  // With a constant amplitude, cycles repeat: some whole cycles are computed, then copied while they are in the cache.
  const uint64_t length = policy.up + policy.down;
  int64_t computed = count;
  if (policy.mode == Mode::constant && length <= static_cast<uint64_t>(count)) {
    const auto cycle = static_cast<int64_t>(length);
    const int64_t enough = count < 2048 ? count : 2048;
    computed = cycle < enough ? enough / cycle * cycle : cycle;
  }
  fill_segments(policy, first, computed, lr, momentum);
  for (int64_t i = computed; i < count; i += computed) {
    const size_t bytes = static_cast<size_t>(count - i < computed ? count - i : computed) * sizeof(double);
    memcpy(lr + i, lr, bytes);
    memcpy(momentum + i, momentum, bytes);
  }
}

}  // namespace
}  // namespace clr
