// Values of ramps against their formula with 113 bits, and at their ends.
#include <doctest/doctest.h>

#include <algorithm>

#include "cpu/kernels.h"
#include "support/bits.h"
#include "support/policies.h"
#include "support/quad.h"

using clr::CurveKind;
using clr::Policy;
using clr::Window;
using clr_test::kLastStep;
using clr_test::kWindows;

namespace {

clr::Value value(const Policy& policy, std::uint64_t step) { return clr::baseline_kernels.evaluate(policy, step, 1.0); }

// From 0.1 to 0.5 or back, as clr_test::ramp makes it, in a whole number of steps.
Policy whole(CurveKind curve, Window window, std::uint64_t length) {
  Policy p = clr_test::ramp(curve, window, 0.0, static_cast<double>(length));
  p.length.lo = 0.0;
  return p;
}

}  // namespace

TEST_CASE("ramp: both ends are met exactly and the last is held") {
  for (const CurveKind curve : {CurveKind::rise, CurveKind::fall, CurveKind::exponential}) {
    const double start = curve == CurveKind::fall ? 0.5 : 0.1, end = curve == CurveKind::fall ? 0.1 : 0.5;
    for (const Window window : kWindows) {
      for (const std::uint64_t length :
           {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{1000}, clr_test::kLargestSize}) {
        const Policy p = whole(curve, window, length);
        CAPTURE(static_cast<int>(curve));
        CAPTURE(static_cast<int>(window));
        CAPTURE(length);
        CHECK(value(p, 0).lr == start);
        for (const std::uint64_t step : {length, length + 1, length + (length >> 1), kLastStep}) {
          CHECK(value(p, step).lr == end);
        }
      }
    }
  }
}

TEST_CASE("ramp: a policy without momentum has none at any step") {
  Policy p = whole(CurveKind::rise, Window::hann, 10);
  p.base_momentum = p.max_momentum = std::nan("");
  p.momentum_amplitude = {p.base_momentum, p.base_momentum};
  for (const std::uint64_t step : {0, 1, 5, 10, 11}) {
    CHECK(clr_test::is_nan(value(p, step).momentum));
    CHECK(value(p, step).lr >= 0.1);
  }
  CHECK_FALSE(clr::has_momentum(p));
}

#if CLR_TEST_QUAD

namespace {

using clr_test::quad;
using clr_test::Quad;
using clr_test::Random;

Quad curve(Window window, Quad s) {
  if (window == Window::welch) return s * (quad(2.0) - s);
  if (window != Window::hann) return s;
  const Quad sine = clr_test::quad_sin(clr_test::quad_half_pi() * s);
  return sine * sine;
}

}  // namespace

TEST_CASE("ramp: rising and falling within 0.51 ulp") {
  Random random(1);
  double worst_lr = 0, worst_momentum = 0;
  for (const Policy& p : clr_test::ramps()) {
    if (p.curve == CurveKind::exponential) continue;
    const auto steps = static_cast<std::uint64_t>(p.length.hi) + 1;
    for (int i = 0; i < 200; ++i) {
      const std::uint64_t step =
          i % 2 == 0 ? random.below(steps) : steps - 1 - random.below(std::min<std::uint64_t>(steps, 60));
      const Quad done = quad(p.lead) + quad(step), left = quad(p.length) - done;
      if (left <= quad(0.0)) continue;
      const Quad s = (p.curve == CurveKind::rise ? done : left) / quad(p.length);
      const Quad w = curve(p.window, s);
      const clr::Value got = value(p, step);
      worst_lr = std::max(worst_lr, clr_test::error_in_ulp(got.lr, quad(p.base_lr) + quad(p.lr_amplitude) * w));
      const Quad momentum = quad(p.max_momentum) - quad(p.momentum_amplitude) * w;
      worst_momentum = std::max(worst_momentum, clr_test::error_in_ulp(got.momentum, momentum));
    }
  }
  CHECK(worst_lr <= 0.51);
  CHECK(worst_momentum <= 0.51);
}

TEST_CASE("ramp: the exponential one is a geometric sequence within 0.51 ulp") {
  // The ratio of neighbours is a power of two times sqrt(2), so the truth is known without a logarithm.
  const Quad root = quad(0x1.6a09e667f3bcdp+0) + quad(-0x1.bdd3413b26456p-54);
  Policy p = whole(CurveKind::exponential, Window::triangular, 400);
  p.base_lr = 0.7;
  const double end = 0.7 * 0x1p200;
  p.lr_amplitude = clr::two_sum(end, -p.base_lr);
  p.log_gamma = clr::add(clr::logarithm(end), clr::negated(clr::logarithm(p.base_lr)));
  for (std::uint64_t step = 0; step <= 400; ++step) {
    const Quad power = quad(std::ldexp(1.0, static_cast<int>(step / 2))) * (step % 2 == 0 ? quad(1.0) : root);
    CAPTURE(step);
    CHECK(clr_test::error_in_ulp(value(p, step).lr, quad(0.7) * power) <= 0.51);
  }
}

#else

TEST_CASE("ramp: rising and falling within 0.51 ulp") { MESSAGE("not tested: no 113-bit numbers here"); }

#endif
