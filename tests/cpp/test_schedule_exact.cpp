// Schedule values against the formulas of core/schedule.h evaluated with 113 bits.
#include <doctest/doctest.h>

#include <algorithm>

#include "cpu/kernels.h"
#include "support/bits.h"
#include "support/policies.h"
#include "support/quad.h"

#if CLR_TEST_QUAD

namespace {

using clr_test::kLastStep;
using clr_test::quad;
using clr_test::Quad;
using clr_test::Random;
using clr_test::Schedule;

// Correct rounding is 0.5. The promise for welch and hann is 1, for powers 2; they are held to what they reach.
constexpr double kUlp = 0.51;

struct Pair {
  Quad value, rest;  // x and 1 - x, each with its own full accuracy
};

Pair exact_window(const Schedule& s, std::uint64_t step) {
  const std::uint64_t length = s.up + s.down, p = step % length;
  const Quad rise = p <= s.up ? quad(p) / quad(s.up) : quad(length - p) / quad(s.down);
  const Quad fall = p <= s.up ? quad(s.up - p) / quad(s.up) : quad(p - s.up) / quad(s.down);
  if (s.window == clr::Window::welch) return {rise * (quad(1.0) + fall), fall * fall};
  if (s.window == clr::Window::hann) {
    const Quad sine = clr_test::quad_sin(clr_test::quad_half_pi() * rise);
    const Quad cosine = clr_test::quad_sin(clr_test::quad_half_pi() * fall);
    return {sine * sine, cosine * cosine};
  }
  return {rise, fall};
}

Pair exact_scale(const Schedule& s, std::uint64_t step, double custom) {
  const std::uint64_t cycle = step / (s.up + s.down);
  Quad scale = quad(1.0);
  if (s.mode == clr::Mode::halved)
    scale = quad(std::ldexp(1.0, -static_cast<int>(std::min<std::uint64_t>(cycle, 2000))));
  if (s.mode == clr::Mode::power_of_step) scale = clr_test::quad_power(s.gamma, step);
  if (s.mode == clr::Mode::power_of_cycle) scale = clr_test::quad_power(s.gamma, cycle);
  if (s.mode == clr::Mode::custom) scale = quad(custom);
  if (s.mode == clr::Mode::linear) {
    scale = step < s.decay_steps ? quad(s.decay_steps - step) / quad(s.decay_steps) : quad(0.0);
  }
  return {scale, quad(1.0) - scale};
}

struct Errors {
  double lr, momentum;  // ulp
  bool lr_is_tiny;

  // Near the end of the range the low halves have few digits, and powers are held to what is promised.
  bool are_small() const { return lr <= (lr_is_tiny ? 2.0 : kUlp) && momentum <= kUlp; }
};

Errors errors(const Schedule& s, std::uint64_t step, double custom) {
  const clr::Value value = clr::baseline_kernels.evaluate(s.policy(), step, custom);
  const Pair window = exact_window(s, step), scale = exact_scale(s, step, custom);
  const Quad base = quad(s.base_lr) * (s.decay_base ? scale.value : quad(1.0));
  const Quad lr = base + (quad(s.max_lr) - quad(s.base_lr)) * window.value * scale.value;
  // 1 - window * scale, on the way that does not cancel.
  const Quad still =
      scale.value <= quad(1.0) ? scale.rest + scale.value * window.rest : quad(1.0) - window.value * scale.value;
  const Quad momentum = quad(s.base_momentum) + (quad(s.max_momentum) - quad(s.base_momentum)) * still;
  return {clr_test::error_in_ulp(value.lr, lr), clr_test::error_in_ulp(value.momentum, momentum), value.lr < 0x1p-1000};
}

// Steps where something happens, and any. Powers are known exactly enough below 2^40 only.
std::uint64_t a_step(const Schedule& s, int i, Random& random) {
  const std::uint64_t length = s.up + s.down;
  const std::uint64_t start = random.below(std::uint64_t{1} << random.below(64)) / length * length;
  const std::uint64_t around[] = {0, 1, s.up - 1, s.up, s.up + 1, length - 1};
  std::uint64_t step = start + (i % 2 == 0 ? around[random.below(6)] : random.below(length));
  const bool is_power = s.mode == clr::Mode::power_of_step || s.mode == clr::Mode::power_of_cycle;
  if (is_power) step %= std::uint64_t{1} << 40;
  return std::min(step, kLastStep);
}

}  // namespace

TEST_CASE("schedule: every window and mode within 0.51 ulp") {
  Random random(1);
  double worst_lr = 0, worst_momentum = 0;
  for (const Schedule& s : clr_test::schedules()) {
    for (int i = 0; i < 100; ++i) {
      const std::uint64_t step = a_step(s, i, random);
      const Errors e = errors(s, step, (i % 2 == 0 ? 1.0 : 3.0) * random.unit());
      worst_lr = std::max(worst_lr, e.lr);
      worst_momentum = std::max(worst_momentum, e.momentum);
      if (e.lr > kUlp || e.momentum > kUlp) {
        FAIL_CHECK(described(s), ", step=", step, ": lr off by ", e.lr, " ulp, momentum by ", e.momentum);
      }
    }
  }
  MESSAGE("worst: lr ", worst_lr, " ulp, momentum ", worst_momentum, " ulp");
}

TEST_CASE("schedule: triangular correctly rounded with random sizes and bounds") {
  Random random(2);
  for (int i = 0; i < 50000; ++i) {
    Schedule s;
    s.up = 1 + random.below(std::uint64_t{1} << random.below(53));
    s.down = 1 + random.below(std::uint64_t{1} << random.below(53));
    s.base_lr = random.unit() * std::ldexp(1.0, -static_cast<int>(random.below(60)));
    s.max_lr = s.base_lr + random.unit();
    s.base_momentum = random.unit();
    s.max_momentum = s.base_momentum + (1.0 - s.base_momentum) * random.unit();
    const std::uint64_t step = std::min(random.bits() >> random.below(64), kLastStep);
    const Errors e = errors(s, step, 1.0);
    if (e.lr > 0.5 + 1e-9 || e.momentum > 0.5 + 1e-9) {
      FAIL_CHECK(described(s), ", step=", step, ": lr off by ", e.lr, " ulp, momentum by ", e.momentum);
    }
  }
}

TEST_CASE("schedule: tiny scales and scales above 1") {
  Random random(3);
  for (const clr::Window window : clr_test::kWindows) {
    for (const double gamma : {0.7, 0.5000001, 0.99, 1.0001, 1.3}) {
      for (const bool decay_base : {false, true}) {
        Schedule s;
        s.window = window;
        s.mode = clr::Mode::power_of_step;
        s.gamma = gamma;
        s.decay_base = decay_base;
        s.base_lr = decay_base ? 0.25 : 0.0;
        s.max_lr = decay_base ? 0.75 : 5.0;
        for (int i = 0; i < 300; ++i) {
          const std::uint64_t step = random.below(2200);
          const Errors e = errors(s, step, 1.0);
          if (!e.are_small()) {
            FAIL_CHECK(described(s), ", step=", step, ": lr off by ", e.lr, " ulp, momentum by ", e.momentum);
          }
        }
      }
    }
  }
}

#else

TEST_CASE("schedule: every window and mode within 0.51 ulp") { MESSAGE("not tested: no 113-bit numbers here"); }

#endif
