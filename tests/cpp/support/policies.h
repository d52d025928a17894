// Schedules as a user writes them, made into policies, and a table of cases.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "core/piece.h"

namespace clr_test {

struct Schedule {
  std::uint64_t up = 10, down = 10;
  double base_lr = 0.1, max_lr = 0.5;
  double base_momentum = 0.8, max_momentum = 0.9;
  clr::Window window = clr::Window::triangular;
  clr::Mode mode = clr::Mode::constant;
  double gamma = 1.0;
  std::uint64_t decay_steps = 1;
  bool decay_base = false;

  clr::Policy policy() const {
    clr::Policy p{};
    p.up = up;
    p.down = down;
    p.decay_steps = decay_steps;
    p.base_lr = base_lr;
    p.lr_amplitude = clr::two_sum(max_lr, -base_lr);
    p.base_momentum = base_momentum;
    p.max_momentum = max_momentum;
    p.momentum_amplitude = clr::two_sum(max_momentum, -base_momentum);
    if (mode == clr::Mode::power_of_step || mode == clr::Mode::power_of_cycle) p.log_gamma = clr::logarithm(gamma);
    p.window = window;
    p.mode = mode;
    p.base_decay = decay_base ? 1.0 : 0.0;
    return p;
  }

  // The whole of a schedule.
  clr::Piece piece() const { return {0, UINT64_MAX, policy()}; }
};

// A ramp of `length` steps, of which `lead` lie before step 0.
inline clr::Policy ramp(clr::CurveKind curve, clr::Window window, double lead, double length) {
  Schedule s;
  s.window = window;
  clr::Policy p = s.policy();
  p.curve = curve;
  p.lead = {lead, lead * 0x1p-60};
  p.length = {length, -length * 0x1p-57};
  if (curve == clr::CurveKind::exponential)
    p.log_gamma = clr::add(clr::logarithm(0.5), clr::negated(clr::logarithm(0.1)));
  return p;
}

// Every curve with every window, short and long, begun or not.
inline std::vector<clr::Policy> ramps() {
  std::vector<clr::Policy> all;
  for (const clr::CurveKind curve : {clr::CurveKind::rise, clr::CurveKind::fall, clr::CurveKind::exponential}) {
    for (const clr::Window window : {clr::Window::triangular, clr::Window::welch, clr::Window::hann}) {
      for (const double length : {1.0, 2.7, 50.0, 9007199254740991.0}) {
        all.push_back(ramp(curve, window, 0.0, length));
        all.push_back(ramp(curve, window, 0.3, length));
      }
    }
  }
  return all;
}

constexpr clr::Window kWindows[] = {clr::Window::triangular, clr::Window::welch, clr::Window::hann};
constexpr clr::Mode kModes[] = {clr::Mode::constant,       clr::Mode::halved, clr::Mode::power_of_step,
                                clr::Mode::power_of_cycle, clr::Mode::linear, clr::Mode::custom};
constexpr std::uint64_t kLargestSize = (std::uint64_t{1} << 53) - 1;
constexpr std::uint64_t kLastStep = (std::uint64_t{1} << 63) - 2;

inline std::string described(const Schedule& s) {
  static const char* const windows[] = {"triangular", "welch", "hann"};
  static const char* const modes[] = {"constant", "halved", "power_of_step", "power_of_cycle", "linear", "custom"};
  return std::string(windows[static_cast<int>(s.window)]) + ", " + modes[static_cast<int>(s.mode)] +
         ", up=" + std::to_string(s.up) + ", down=" + std::to_string(s.down) + ", gamma=" + std::to_string(s.gamma) +
         (s.decay_base ? ", decay_base" : "");
}

// Every window with every mode, sizes small, odd, unequal and huge, bounds near, far and equal.
inline std::vector<Schedule> schedules() {
  std::vector<Schedule> all;
  const std::uint64_t sizes[][2] = {
      {1, 1}, {3, 3}, {2000, 2000}, {7, 3}, {1, 999983}, {999983, 1}, {kLargestSize, kLargestSize}, {3, kLargestSize}};
  const double bounds[][2] = {{0.001, 0.006}, {1e-300, 1.0}, {0.1, 0.1}, {0.0, 3.0}, {0.1, 0.10000000000000002}};
  std::size_t next = 0;
  for (const clr::Window window : kWindows) {
    for (const clr::Mode mode : kModes) {
      for (const auto& size : sizes) {
        Schedule s;
        s.window = window;
        s.mode = mode;
        s.up = size[0];
        s.down = size[1];
        s.base_lr = bounds[next % 5][0];
        s.max_lr = bounds[next % 5][1];
        s.base_momentum = next % 3 == 0 ? 0.0 : 0.85;
        s.max_momentum = next % 4 == 0 ? 1.0 : 0.95;
        s.gamma = next % 2 == 0 ? 0.99994 : 1.0 - 0x1p-40;
        s.decay_steps = 1 + next * 12345;
        s.decay_base = next % 7 == 0;
        ++next;
        all.push_back(s);
      }
    }
  }
  return all;
}

}  // namespace clr_test
