// The only schedule formulas of this project: the cyclical policies of Smith (2017), and ramps, of which warm-up,
// one-cycle phases and range tests are made.
//
//   T = up + down, cycle k = step / T, p = step % T
//   s = p / up on the way up, (T - p) / down on the way down         phase, 0 at bottoms and 1 at the peak
//   w = s | s (2 - s) | sin(pi s / 2)^2                               window: triangular, welch, hann
//   a = 1 | 2^-k | gamma^step | gamma^k | max(0, 1 - step / D) | f    amplitude scale of the mode
//   lr       = base_lr + (max_lr - base_lr) w a                       (decay_base: base_lr a in place of base_lr)
//   momentum = max_momentum - (max_momentum - base_momentum) w a
//
// A ramp goes once from one boundary to the other and stays there: s = min(1, (lead + step) / length), a = 1, falling
// with 1 - s in place of s; the exponential one is start (end / start)^s.
//
// Phases come from exact integers and everything is carried in double-double, w and 1 - w both with full relative
// accuracy, and rounded once at the end: the triangular window is correctly rounded, welch and hann are within an ulp,
// powers within two, and no value leaves its boundaries while 0 <= a <= 1.
#pragma once

#include "core/elementary.h"

namespace clr {

enum class CurveKind : int32_t { cycles, rise, fall, exponential };  // the last three: ramps

enum class Window : int32_t { triangular, welch, hann };

// How the amplitude shrinks. `custom` takes the scale from the caller.
enum class Mode : int32_t { constant, halved, power_of_step, power_of_cycle, linear, custom };

struct Policy {
  // What every step of the plain policies needs comes first.
  uint64_t up, down;  // steps of the rising and of the falling half, 1 to 2^53 - 1
  double base_lr, base_momentum, max_momentum;
  DoubleDouble lr_amplitude, momentum_amplitude;  // max - base, exactly; CurveKind::exponential: end - start
  CurveKind curve;
  Window window;
  Mode mode;
  bool custom_by_cycle;       // Mode::custom: the scale is a function of the cycle (from 1), else of the step (from 0)
  uint64_t decay_steps;       // Mode::linear: steps until the amplitude is zero
  double base_decay;          // 1 if the base decays with the amplitude, 0 if it stays
  DoubleDouble log_gamma;     // Mode::power_of_*; CurveKind::exponential: log(end / start)
  DoubleDouble lead, length;  // a ramp: steps between its start and its step 0, and from end to end; both real
};

// A policy without momentum has NaN for base_momentum, and so for every value of it.
struct Value {
  double lr, momentum;
};

struct Position {
  uint64_t cycle, step_in_cycle;
};

struct Phase {
  DoubleDouble rise, fall;  // s and 1 - s
};

// a = mantissa * power and 1 - a. The power is applied last, so that nothing is lost on the way to tiny values.
struct Scale {
  DoubleDouble mantissa;
  PowerOfTwo power;
  DoubleDouble rest;
};

CLR_INLINE Position position_of(const Policy& policy, uint64_t step) {
  const uint64_t length = policy.up + policy.down;
  const uint64_t cycle = step / length;
  return {cycle, step - cycle * length};
}

// Both arguments are exact integers, 0 <= done <= steps.
CLR_INLINE Phase rising_phase(double done, double steps) { return {ratio(done, steps), ratio(steps - done, steps)}; }

CLR_INLINE Phase falling_phase(double done, double steps) { return {ratio(steps - done, steps), ratio(done, steps)}; }

CLR_INLINE Phase phase_of(const Policy& policy, uint64_t step_in_cycle) {
  return step_in_cycle < policy.up
             ? rising_phase(static_cast<double>(step_in_cycle), static_cast<double>(policy.up))
             : falling_phase(static_cast<double>(step_in_cycle - policy.up), static_cast<double>(policy.down));
}

CLR_INLINE Phase windowed(Window window, Phase phase) {
  if (window == Window::welch) {
    return {times(phase.rise, add(phase.fall, 1.0)), times(phase.fall, phase.fall)};
  }
  if (window == Window::hann) {
    const bool rise_is_less = phase.rise.hi <= phase.fall.hi;
    const DoubleDouble t = {rise_is_less ? phase.rise.hi : phase.fall.hi, rise_is_less ? phase.rise.lo : phase.fall.lo};
    const DoubleDouble less = sin_squared_half_pi(t);
    const DoubleDouble more = add(negated(less), 1.0);
    return {{rise_is_less ? less.hi : more.hi, rise_is_less ? less.lo : more.lo},
            {rise_is_less ? more.hi : less.hi, rise_is_less ? more.lo : less.lo}};
  }
  return phase;  // triangular
}

// Products of a tiny scale would lose bits below the smallest double: the power keeps them for last.
CLR_INLINE Scale custom_scale(double scale) {
  const bool tiny = scale < 0x1p-500 && scale > -0x1p-500;
  return {{tiny ? scale * 0x1p500 : scale, 0.0}, {tiny ? 0x1p-500 : 1.0, 1.0}, two_sum(1.0, -scale)};
}

// Returns 2^-cycle.
CLR_INLINE Scale halved_scale(uint64_t cycle) {
  const PowerOfTwo power = power_of_two(cycle < 2040 ? -static_cast<int64_t>(cycle) : -2040);
  return {{1.0, 0.0}, power, two_sum(1.0, -(power.first * power.second))};
}

// gamma^n = 2^exponent (1 + minus_one), as a product of a power from kPowerBlock steps to kPowerBlock steps and one of
// a few steps: for many steps the second comes out of a table. The value depends on n alone.
constexpr uint64_t kPowerBlock = 64;

CLR_INLINE Exponential power_of(DoubleDouble log_gamma, uint64_t n) {
  DoubleDouble x = times(log_gamma, from_count(n));
  const bool too_far = x.hi < -1400.0 || x.hi > 1400.0;
  x.hi = x.hi < -1400.0 ? -1400.0 : (x.hi > 1400.0 ? 1400.0 : x.hi);
  x.lo = too_far ? 0.0 : x.lo;
  return exponential(x);
}

// Of two powers of one gamma: with exponents of 0 both `minus_one` have the same sign, so that nothing cancels.
CLR_INLINE Exponential product(Exponential a, Exponential b) {
  return {horner(a.minus_one, add(a.minus_one, 1.0), b.minus_one), a.exponent + b.exponent};
}

// Beyond 2^2019 either way the value says so: it is the base, or not finite.
CLR_INLINE Scale power_scale(Exponential power) {
  const bool too_small = power.exponent < -2019;
  const bool too_large = power.exponent > 2019;
  const PowerOfTwo two = power_of_two(too_small ? -2019 : (too_large ? 2019 : power.exponent));
  const DoubleDouble m = add(power.minus_one, 1.0);
  const DoubleDouble mantissa = {too_small ? 0.0 : m.hi, too_small ? 0.0 : m.lo};
  const DoubleDouble rest = add(negated(scaled(mantissa, two)), 1.0);
  const bool near_one = power.exponent == 0;
  return {mantissa, two, {near_one ? -power.minus_one.hi : rest.hi, near_one ? -power.minus_one.lo : rest.lo}};
}

CLR_INLINE Scale power_scale(const Policy& policy, uint64_t n) {
  const uint64_t block = n / kPowerBlock * kPowerBlock;
  return power_scale(product(power_of(policy.log_gamma, block), power_of(policy.log_gamma, n - block)));
}

CLR_INLINE Scale linear_scale(const Policy& policy, uint64_t step) {
  const uint64_t done = step < policy.decay_steps ? step : policy.decay_steps;
  const Phase phase = falling_phase(static_cast<double>(done), static_cast<double>(policy.decay_steps));
  return {phase.rise, {1.0, 1.0}, phase.fall};
}

// In every mode but Mode::constant.
CLR_INLINE Scale scale_of(const Policy& policy, uint64_t step, uint64_t cycle, double custom) {
  switch (policy.mode) {
    case Mode::halved:
      return halved_scale(cycle);
    case Mode::power_of_step:
      return power_scale(policy, step);
    case Mode::power_of_cycle:
      return power_scale(policy, cycle);
    case Mode::linear:
      return linear_scale(policy, step);
    default:
      return custom_scale(custom);
  }
}

// True if the scale is the same for all steps of a cycle.
CLR_INLINE bool scale_is_per_cycle(Mode mode) { return mode == Mode::halved || mode == Mode::power_of_cycle; }

// The scale a = 1. The functions below take it in place of a Scale, and leave out every product with it.
struct FullAmplitude {};

CLR_INLINE DoubleDouble weighted(DoubleDouble x, Scale a) { return times(x, a.mantissa); }
CLR_INLINE DoubleDouble weighted(DoubleDouble x, FullAmplitude) { return x; }
CLR_INLINE DoubleDouble powered(DoubleDouble x, Scale a) { return scaled(x, a.power); }
CLR_INLINE DoubleDouble powered(DoubleDouble x, FullAmplitude) { return x; }
// Returns 1 - w a, as a sum without cancellation while a <= 1.
CLR_INLINE DoubleDouble rest_of(Phase w, Scale a) {
  return add_same_sign(a.rest, times(scaled(a.mantissa, a.power), w.fall));
}
CLR_INLINE DoubleDouble rest_of(Phase w, FullAmplitude) { return w.fall; }
CLR_INLINE bool is_above_one(Scale a) { return scaled(a.mantissa, a.power).hi > 1.0; }
CLR_INLINE bool is_above_one(FullAmplitude) { return false; }

// True if some value of this policy can be one that no optimizer can use.
CLR_INLINE bool may_leave_bounds(const Policy& policy) {
  return policy.curve == CurveKind::cycles && (policy.mode == Mode::custom || policy.log_gamma.hi > 0.0);
}

// True if the base stays and a is at most one.
CLR_INLINE bool stays_in_bounds(const Policy& policy) { return policy.base_decay == 0.0 && !may_leave_bounds(policy); }

// `w`: the value of the window, which many policies may share. `plain`: stays_in_bounds(policy) is known to hold, so
// that no other case is compiled.
template <bool plain, class AnyScale>
CLR_INLINE Value value_of(const Policy& policy, Phase w, AnyScale a) {
  const DoubleDouble weight = weighted(w.rise, a);
  const DoubleDouble swing = times(policy.lr_amplitude, weight);
  double lr = add(powered(swing, a), policy.base_lr).hi;
  double momentum = add(times(policy.momentum_amplitude, rest_of(w, a)), policy.base_momentum).hi;
  if constexpr (!plain) {
    const double decaying = powered(add(swing, weighted(DoubleDouble{policy.base_lr, 0.0}, a)), a).hi;
    lr = policy.base_decay != 0.0 ? decaying : lr;
    // If a is above one, 1 - w a cancels: the value is formed from the top down. `nothing` stands for a difference of
    // zero.
    const DoubleDouble fall = powered(times(policy.momentum_amplitude, weight), a);
    const double down = add(negated(fall), policy.max_momentum).hi;
    const double nothing = 0x1p-96 * policy.max_momentum;
    momentum = is_above_one(a) ? (down <= nothing && down >= -nothing ? 0.0 : down) : momentum;
  }
  return {lr, momentum};
}

template <bool plain, class AnyScale>
CLR_INLINE Value value_at(const Policy& policy, Window window, Phase phase, AnyScale a) {
  return value_of<plain>(policy, windowed(window, phase), a);
}

// Returns s and 1 - s of a ramp. `step` is a whole number: from 2^53 on every ramp is over.
CLR_INLINE Phase ramp_phase(const Policy& policy, double step) {
  const DoubleDouble done = add(policy.lead, step);
  const DoubleDouble left = add(policy.length, negated(done));
  const DoubleDouble rise = ratio(done, policy.length);
  const DoubleDouble fall = ratio(left, policy.length);
  const bool over = left.hi <= 0.0;
  return {{over ? 1.0 : rise.hi, over ? 0.0 : rise.lo}, {over ? 0.0 : fall.hi, over ? 0.0 : fall.lo}};
}

CLR_INLINE Value ramp_value(const Policy& policy, CurveKind curve, Window window, double step) {
  const Phase s = ramp_phase(policy, step);
  if (curve == CurveKind::exponential) {
    const Exponential e = exponential(times(policy.log_gamma, s.rise));
    const DoubleDouble lr = scaled(times(add(e.minus_one, 1.0), policy.base_lr), power_of_two(e.exponent));
    const double end = add(policy.lr_amplitude, policy.base_lr).hi;
    return {s.fall.hi == 0.0 ? end : lr.hi, policy.base_momentum};
  }
  return value_at<true>(policy, window, curve == CurveKind::rise ? s : Phase{s.fall, s.rise}, FullAmplitude{});
}

CLR_INLINE double ramp_step(uint64_t step) {
  const uint64_t far = uint64_t{1} << 53;
  return static_cast<double>(step < far ? step : far);
}

// Returns the value of update number `step`, 0 to 2^63 - 1. `custom` is read in Mode::custom only.
CLR_INLINE Value evaluate(const Policy& policy, uint64_t step, double custom) {
  if (policy.curve != CurveKind::cycles) return ramp_value(policy, policy.curve, policy.window, ramp_step(step));
  const Position at = position_of(policy, step);
  const Phase phase = phase_of(policy, at.step_in_cycle);
  if (policy.mode == Mode::constant) return value_at<true>(policy, policy.window, phase, FullAmplitude{});
  return value_at<false>(policy, policy.window, phase, scale_of(policy, step, at.cycle, custom));
}

// True if the two policies have the same w and a at every step.
CLR_INLINE bool moves_alike(const Policy& a, const Policy& b) {
  return a.curve == CurveKind::cycles && b.curve == CurveKind::cycles && a.up == b.up && a.down == b.down &&
         a.window == b.window && a.mode == b.mode && a.mode != Mode::custom && a.decay_steps == b.decay_steps &&
         a.log_gamma.hi == b.log_gamma.hi && a.log_gamma.lo == b.log_gamma.lo;
}

// Returns the number that a scale function is called with.
CLR_INLINE uint64_t scale_argument(const Policy& policy, uint64_t step) {
  return policy.custom_by_cycle ? position_of(policy, step).cycle + 1 : step;
}

CLR_INLINE bool has_momentum(const Policy& policy) { return policy.base_momentum == policy.base_momentum; }

CLR_INLINE bool is_valid_lr(double lr) { return lr >= 0.0 && lr <= 0x1.fffffffffffffp+1023; }
CLR_INLINE bool is_valid_momentum(double momentum) { return momentum >= 0.0 && momentum <= 1.0; }

}  // namespace clr
