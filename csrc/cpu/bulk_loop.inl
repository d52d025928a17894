// Arrays of schedule values: straight loops over one half of a cycle, or a ramp, which compilers vectorise.
#include "cpu/kernels.h"

namespace clr {
namespace {

enum class ScaleKind { per_cycle, power_of_step, linear };

// gamma^r for r below kPowerBlock. power_scale(policy, n) of many consecutive n takes the rest from one such power.
struct PowerTable {
  double hi[kPowerBlock], lo[kPowerBlock];
  int64_t exponent[kPowerBlock];
};

void fill_table(const Policy& policy, PowerTable& table) {
  const DoubleDouble log_gamma = policy.log_gamma;
  for (int32_t r = 0; r < static_cast<int32_t>(kPowerBlock); ++r) {
    const Exponential power = power_of(log_gamma, static_cast<uint64_t>(r));
    table.hi[r] = power.minus_one.hi;
    table.lo[r] = power.minus_one.lo;
    table.exponent[r] = power.exponent;
  }
}

// One half of one cycle, or part of it: `done` of `steps` steps of the half lie before the first value.
struct Segment {
  bool rising;
  double done, steps;
  uint64_t first_step;
  Scale scale;              // ScaleKind::per_cycle
  const PowerTable* table;  // ScaleKind::power_of_step: of the policy
};

template <ScaleKind kind>
CLR_INLINE Scale scale_in(const Policy& policy, const Segment& segment, Exponential block, int32_t i) {
  const uint64_t step = segment.first_step + static_cast<uint64_t>(i);
  if constexpr (kind == ScaleKind::power_of_step) {
    const uint64_t r = step % kPowerBlock;
    return power_scale(product(block, {{segment.table->hi[r], segment.table->lo[r]}, segment.table->exponent[r]}));
  }
  if constexpr (kind == ScaleKind::linear) return linear_scale(policy, step);
  return segment.scale;
}

// Values begin to end of a segment; power_of_step: of one block.
template <bool rising, Window window, ScaleKind kind>
CLR_INLINE void fill_run(const Policy& policy, const Segment& segment, int32_t begin, int32_t end,
                         double* __restrict lr, double* __restrict momentum) {
  const Policy p = policy;
  const Segment s = segment;
  Exponential block = {{0.0, 0.0}, 0};
  if constexpr (kind == ScaleKind::power_of_step) {
    const uint64_t step = s.first_step + static_cast<uint64_t>(begin);
    block = power_of(p.log_gamma, step / kPowerBlock * kPowerBlock);
  }
  for (int32_t i = begin; i < end; ++i) {
    const double done = s.done + i;
    const Phase phase = rising ? rising_phase(done, s.steps) : falling_phase(done, s.steps);
    const Value value = value_at(p, window, phase, scale_in<kind>(p, s, block, i));
    lr[i] = value.lr;
    momentum[i] = value.momentum;
  }
}

template <bool rising, Window window, ScaleKind kind>
void fill_half(const Policy& policy, const Segment& segment, int32_t count, double* lr, double* momentum) {
  if constexpr (kind == ScaleKind::power_of_step) {
    for (int32_t i = 0; i < count;) {
      const uint64_t step = segment.first_step + static_cast<uint64_t>(i);
      const auto left = static_cast<int32_t>(kPowerBlock - step % kPowerBlock);
      const int32_t end = count - i < left ? count : i + left;
      fill_run<rising, window, kind>(policy, segment, i, end, lr, momentum);
      i = end;
    }
  } else {
    fill_run<rising, window, kind>(policy, segment, 0, count, lr, momentum);
  }
}

template <Window window, ScaleKind kind>
void fill_segment(const Policy& policy, const Segment& segment, int32_t count, double* lr, double* momentum) {
  return segment.rising ? fill_half<true, window, kind>(policy, segment, count, lr, momentum)
                        : fill_half<false, window, kind>(policy, segment, count, lr, momentum);
}

using FillSegment = void (*)(const Policy&, const Segment&, int32_t, double*, double*);

template <Window window>
FillSegment segment_filler(Mode mode) {
  return mode == Mode::power_of_step ? fill_segment<window, ScaleKind::power_of_step>
         : mode == Mode::linear      ? fill_segment<window, ScaleKind::linear>
                                     : fill_segment<window, ScaleKind::per_cycle>;
}

FillSegment segment_filler(const Policy& policy) {
  switch (policy.window) {
    case Window::welch:
      return segment_filler<Window::welch>(policy.mode);
    case Window::hann:
      return segment_filler<Window::hann>(policy.mode);
    case Window::triangular:
      break;
  }
  return segment_filler<Window::triangular>(policy.mode);
}

// `count` values of a ramp from its step `first`, a whole number, on.
template <Course course, Window window>
void fill_ramp(const Policy& policy, double first, int32_t count, double* __restrict lr, double* __restrict momentum) {
  const Policy p = policy;
  for (int32_t i = 0; i < count; ++i) {
    const Value value = ramp_value(p, course, window, first + i);
    lr[i] = value.lr;
    momentum[i] = value.momentum;
  }
}

using FillRamp = void (*)(const Policy&, double, int32_t, double*, double*);

template <Course course>
FillRamp ramp_filler(Window window) {
  return window == Window::hann    ? fill_ramp<course, Window::hann>
         : window == Window::welch ? fill_ramp<course, Window::welch>
                                   : fill_ramp<course, Window::triangular>;
}

FillRamp ramp_filler(const Policy& policy) {
  return policy.course == Course::rise   ? ramp_filler<Course::rise>(policy.window)
         : policy.course == Course::fall ? ramp_filler<Course::fall>(policy.window)
                                         : fill_ramp<Course::exponential, Window::triangular>;
}

Value evaluate_one(const Policy& policy, uint64_t step, double custom) { return evaluate(policy, step, custom); }

void put(const Policy& policy, uint64_t step, double custom, double* lr, double* momentum) {
  const Value value = evaluate_one(policy, step, custom);
  *lr = value.lr;
  *momentum = value.momentum;
}

constexpr int64_t kLongestRun = int64_t{1} << 30;  // an int32_t count, as vector conversions want it

void fill_ramps(const Policy& policy, uint64_t first, int64_t count, double* lr, double* momentum) {
  const FillRamp fill = ramp_filler(policy);
  for (int64_t i = 0; i < count; i += kLongestRun) {
    const int64_t n = count - i < kLongestRun ? count - i : kLongestRun;
    fill(policy, ramp_step(first + static_cast<uint64_t>(i)), static_cast<int32_t>(n), lr + i, momentum + i);
  }
}

// Values of consecutive steps, one half of a cycle at a time.
void fill_segments(const Policy& policy, uint64_t first, int64_t count, double* lr, double* momentum) {
  const FillSegment fill = segment_filler(policy);
  PowerTable table;
  if (policy.mode == Mode::power_of_step) fill_table(policy, table);
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
  if (policy.course != Course::cycles) return fill_ramps(policy, first, count, lr, momentum);
  if (policy.mode == Mode::custom) {
    for (int64_t i = 0; i < count; ++i) {
      put(policy, first + static_cast<uint64_t>(i), custom[i], lr + i, momentum + i);
    }
    return;
  }
  // A constant amplitude repeats itself: some whole cycles are computed, and copied while they are in the cache.
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
