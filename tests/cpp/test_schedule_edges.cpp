// What a schedule promises exactly, at any distance from the start.
#include <doctest/doctest.h>

#include <algorithm>

#include "cpu/kernels.h"
#include "support/bits.h"
#include "support/policies.h"

using clr::Mode;
using clr::Policy;
using clr::Value;
using clr_test::kLastStep;
using clr_test::Random;
using clr_test::Schedule;

namespace {

// The baseline's copy: core/ is inlined wherever it is called, and compiles slowly.
Value value_of(const Policy& policy, std::uint64_t step, double custom = 1.0) {
  return clr::baseline_kernels.evaluate(policy, step, custom);
}

// The largest cycle start not after `step`.
std::uint64_t cycle_start(const Schedule& s, std::uint64_t step) { return step - step % (s.up + s.down); }

}  // namespace

TEST_CASE("schedule: bottoms and peaks are the boundaries") {
  Random random(1);
  for (Schedule s : clr_test::schedules()) {
    s.mode = Mode::constant;
    s.decay_base = false;
    const Policy policy = s.policy();
    for (int i = 0; i < 20; ++i) {
      const std::uint64_t bottom = cycle_start(s, i == 0 ? 0 : random.bits() >> (1 + random.below(63)));
      INFO(described(s), ", bottom at ", bottom);
      const Value low = value_of(policy, bottom);
      CHECK(low.lr == s.base_lr);
      CHECK(low.momentum == s.max_momentum);
      if (bottom + s.up > kLastStep) continue;
      const Value high = value_of(policy, bottom + s.up);
      CHECK(high.lr == s.max_lr);
      CHECK(high.momentum == s.base_momentum);
    }
  }
}

TEST_CASE("schedule: no value leaves its boundaries while the scale is in 0 to 1") {
  Random random(2);
  for (const Schedule& s : clr_test::schedules()) {
    const Policy policy = s.policy();
    const double least = s.decay_base ? 0.0 : s.base_lr;
    for (int i = 0; i < 200; ++i) {
      const std::uint64_t step = std::min(random.bits() >> random.below(64), kLastStep);
      const Value v = value_of(policy, step, i == 0 ? 0.0 : i == 1 ? 1.0 : random.unit());
      const bool inside =
          v.lr >= least && v.lr <= s.max_lr && v.momentum >= s.base_momentum && v.momentum <= s.max_momentum;
      if (!inside) FAIL_CHECK(described(s), ", step=", step, ": lr=", v.lr, ", momentum=", v.momentum);
    }
  }
}

TEST_CASE("schedule: a rising half never falls and a falling half never rises") {
  for (const clr::Window window : clr_test::kWindows) {
    Schedule s;
    s.window = window;
    s.up = 997;
    s.down = 1409;
    const Policy policy = s.policy();
    Value before = value_of(policy, 0);
    for (std::uint64_t step = 1; step <= s.up + s.down; ++step) {
      const Value now = value_of(policy, step);
      const bool rising = step <= s.up;
      INFO(described(s), ", step=", step);
      REQUIRE((rising ? now.lr >= before.lr : now.lr <= before.lr));
      REQUIRE((rising ? now.momentum <= before.momentum : now.momentum >= before.momentum));
      before = now;
    }
  }
}

TEST_CASE("schedule: equal halves are mirror images") {
  for (Schedule s : clr_test::schedules()) {
    s.mode = Mode::constant;
    s.down = s.up = std::min(s.up, s.down);
    const Policy policy = s.policy();
    Random random(3);
    for (int i = 0; i < 50; ++i) {
      const std::uint64_t p = random.below(s.up + 1);
      const Value up = value_of(policy, p), down = value_of(policy, 2 * s.up - p);
      INFO(described(s), ", p=", p);
      CHECK(up.lr == down.lr);
      CHECK(up.momentum == down.momentum);
    }
  }
}

TEST_CASE("schedule: triangular2 halves each cycle and ends on the base") {
  Schedule s;
  s.mode = Mode::halved;
  s.base_lr = 0.0;
  s.max_lr = 1.0;
  const Policy policy = s.policy();
  for (std::uint64_t cycle = 0; cycle < 1200; ++cycle) {
    CAPTURE(cycle);
    CHECK(value_of(policy, cycle * 20 + 10).lr == std::ldexp(1.0, -static_cast<int>(cycle)));
  }
  s.base_lr = 0.1;
  s.max_lr = 0.5;
  CHECK(value_of(s.policy(), kLastStep).lr == 0.1);
  CHECK(value_of(s.policy(), kLastStep).momentum == s.max_momentum);
}

TEST_CASE("schedule: linear_range is on the base from decay_steps on") {
  Schedule s;
  s.mode = Mode::linear;
  s.decay_steps = 45;
  const Policy policy = s.policy();
  CHECK(value_of(policy, 10).lr == doctest::Approx(0.1 + 0.4 * 35 / 45));
  CHECK(value_of(policy, 44).lr > 0.1);
  for (const std::uint64_t step : {std::uint64_t{45}, std::uint64_t{46}, std::uint64_t{50}, kLastStep}) {
    CAPTURE(step);
    CHECK(value_of(policy, step).lr == 0.1);
    CHECK(value_of(policy, step).momentum == 0.9);
  }
}

TEST_CASE("schedule: decay_base shrinks both boundaries of lr and neither of momentum") {
  Schedule s;
  s.mode = Mode::custom;
  s.decay_base = true;
  const Policy policy = s.policy();
  CHECK(value_of(policy, 0, 0.5).lr == 0.05);
  CHECK(value_of(policy, 0, 0.5).momentum == 0.9);
  CHECK(value_of(policy, 10, 0.5).lr == 0.25);
  CHECK(value_of(policy, 10, 0.0).lr == 0.0);
}

TEST_CASE("schedule: a gamma of 1 changes nothing and powers beyond a double are 0 or not finite") {
  Schedule plain, powered;
  powered.mode = Mode::power_of_step;
  for (std::uint64_t step = 0; step < 100; ++step) {
    CHECK(value_of(plain.policy(), step).lr == value_of(powered.policy(), step).lr);
  }
  powered.gamma = 0.5;
  CHECK(value_of(powered.policy(), kLastStep).lr == 0.1);
  CHECK(value_of(powered.policy(), kLastStep).momentum == 0.9);
  powered.gamma = 0x1p-1074;
  CHECK(value_of(powered.policy(), kLastStep).lr == 0.1);
  powered.gamma = 1.5;
  const std::uint64_t peak = kLastStep - kLastStep % 20 - 10;
  CHECK_FALSE(clr::is_valid_lr(value_of(powered.policy(), peak).lr));
}

TEST_CASE("schedule: without momentum it is NaN everywhere") {
  Schedule s;
  s.base_momentum = s.max_momentum = std::nan("");
  for (const Mode mode : clr_test::kModes) {
    s.mode = mode;
    for (const std::uint64_t step : {std::uint64_t{0}, std::uint64_t{10}, std::uint64_t{13}, kLastStep}) {
      CHECK(clr_test::is_nan(value_of(s.policy(), step, 0.5).momentum));
      CHECK(value_of(s.policy(), step, 0.5).lr >= 0.1);
    }
  }
}

TEST_CASE("schedule: which values no optimizer may be given") {
  CHECK(clr::is_valid_lr(0.0));
  CHECK(clr::is_valid_lr(0x1.fffffffffffffp+1023));
  for (const double lr : {-1e-300, HUGE_VAL, -HUGE_VAL, std::nan("")}) CHECK_FALSE(clr::is_valid_lr(lr));
  CHECK(clr::is_valid_momentum(0.0));
  CHECK(clr::is_valid_momentum(1.0));
  for (const double m : {-1e-300, 1.0000000000000002, HUGE_VAL, std::nan("")}) CHECK_FALSE(clr::is_valid_momentum(m));
}
