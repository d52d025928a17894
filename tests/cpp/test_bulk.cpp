// Arrays of schedule values: whoever fills them, the bits are those of evaluate().
#include <doctest/doctest.h>

#include <utility>
#include <vector>

#include "cpu/bulk.h"
#include "support/bits.h"
#include "support/isas.h"
#include "support/policies.h"

using clr_test::first_difference;
using clr_test::kNoDifference;
using clr_test::Random;
using clr_test::Schedule;

namespace {

struct Values {
  std::vector<double> lr, momentum;
  explicit Values(std::size_t count) : lr(count, -1.0), momentum(count, -1.0) {}
};

// The baseline's evaluate(), which is the formula compiled for any processor.
Values expected(const clr::Policy& policy, const std::vector<std::int64_t>& steps, const std::vector<double>& scales) {
  Values v(steps.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const clr::Value value = clr::baseline_kernels.evaluate(policy, static_cast<std::uint64_t>(steps[i]), scales[i]);
    v.lr[i] = value.lr;
    v.momentum[i] = value.momentum;
  }
  return v;
}

void check_same(const Values& got, const Values& want, const char* how) {
  INFO(std::string(how));
  CHECK(first_difference(got.lr, want.lr) == kNoDifference);
  CHECK(first_difference(got.momentum, want.momentum) == kNoDifference);
}

std::vector<double> random_scales(std::size_t count, Random& random) {
  std::vector<double> scales(count);
  for (double& x : scales) x = random.unit();
  return scales;
}

constexpr std::uint64_t kFar = std::uint64_t{1} << 60;

std::vector<std::int64_t> counted(std::uint64_t first, std::size_t count) {
  std::vector<std::int64_t> steps(count);
  for (std::size_t i = 0; i < count; ++i) steps[i] = static_cast<std::int64_t>(first + i);
  return steps;
}

}  // namespace

TEST_CASE("bulk: fill_range and evaluate agree bit for bit on every instruction set") {
  Random random(1);
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const Schedule& s : clr_test::schedules()) {
      const clr::Policy policy = s.policy();
      const std::size_t count = random.below(70);
      const std::uint64_t length = s.up + s.down;
      // Starts such that some ranges run over a peak or a bottom.
      const std::uint64_t near = random.below(2) == 0 ? s.up : length;
      const std::uint64_t first = random.below(std::uint64_t{1} << (1 + random.below(60))) / length * length + near -
                                  std::min(near, random.below(20));
      const std::vector<std::int64_t> steps = counted(first, count);
      const std::vector<double> scales = random_scales(count, random);
      INFO(std::string(isa.name), ", ", described(s), ", first=", first, ", count=", count);
      const Values want = expected(policy, steps, scales);
      Values range(count), one(count);
      isa.kernels->fill_range(policy, first, static_cast<std::int64_t>(count), scales.data(), range.lr.data(),
                              range.momentum.data());
      for (std::size_t i = 0; i < count; ++i) {
        const clr::Value v = isa.kernels->evaluate(policy, static_cast<std::uint64_t>(steps[i]), scales[i]);
        one.lr[i] = v.lr;
        one.momentum[i] = v.momentum;
      }
      check_same(range, want, "fill_range");
      check_same(one, want, "evaluate");
    }
  }
}

TEST_CASE("bulk: many cycles in one range") {
  Random random(2);
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const clr::Window window : clr_test::kWindows) {
      for (const clr::Mode mode : clr_test::kModes) {
        Schedule s;
        s.up = 37;
        s.down = 5;
        s.window = window;
        s.mode = mode;
        s.gamma = 0.9994;
        s.decay_steps = 3001;
        const std::size_t count = 5000;
        const std::vector<double> scales = random_scales(count, random);
        INFO(std::string(isa.name), ", ", described(s));
        Values got(count);
        isa.kernels->fill_range(s.policy(), 11, count, scales.data(), got.lr.data(), got.momentum.data());
        check_same(got, expected(s.policy(), counted(11, count), scales), "fill_range");
      }
    }
  }
}

TEST_CASE("bulk: powers of a step have the same bits wherever a range starts in their blocks") {
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const double gamma : {0x1p-1074, 0.5, 0.99994, 1.0 - 0x1p-53, 1.0 + 0x1p-52, 1.1}) {
      for (const std::uint64_t up : {std::uint64_t{1}, std::uint64_t{50}, std::uint64_t{1} << 40}) {
        Schedule s;
        s.up = up;
        s.down = 3;
        s.mode = clr::Mode::power_of_step;
        s.gamma = gamma;
        for (const std::uint64_t border :
             {clr::kPowerBlock, 1000 * clr::kPowerBlock, kFar, clr_test::kLastStep - 200}) {
          for (const std::uint64_t before : {0u, 1u, 63u, 64u}) {
            const std::size_t count = 131;
            INFO(std::string(isa.name), ", ", described(s), ", border=", border, ", before=", before);
            Values got(count);
            isa.kernels->fill_range(s.policy(), border - before, count, nullptr, got.lr.data(), got.momentum.data());
            const std::vector<double> scales(count, 1.0);
            check_same(got, expected(s.policy(), counted(border - before, count), scales), "fill_range");
          }
        }
      }
    }
  }
}

TEST_CASE("bulk: policies that move alike, together and one by one") {
  Random random(4);
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const clr::Window window : clr_test::kWindows) {
      for (const clr::Mode mode : clr_test::kModes) {
        if (mode == clr::Mode::custom) continue;
        std::vector<clr::Policy> policies;
        for (int i = 0; i < 9; ++i) {
          Schedule s;
          s.up = 37;
          s.down = 5;
          s.window = window;
          s.mode = mode;
          s.gamma = 0.9994;
          s.decay_steps = 3001;
          s.base_lr = 0.001 * (i + 1);
          s.max_lr = 0.3 + 0.01 * i;
          policies.push_back(s.policy());
          CHECK(clr::moves_alike(policies.front(), policies.back()));
        }
        for (int i = 0; i < 50; ++i) {
          const std::uint64_t step = random.below(std::uint64_t{1} << (1 + random.below(62)));
          std::vector<clr::Value> values(policies.size());
          isa.kernels->evaluate_alike(policies.data(), static_cast<std::int64_t>(policies.size()), step, values.data());
          for (std::size_t p = 0; p < policies.size(); ++p) {
            const clr::Value one = isa.kernels->evaluate(policies[p], step, 1.0);
            INFO(std::string(isa.name), ", step=", step, ", policy ", p);
            CHECK(clr_test::same(values[p].lr, one.lr));
            CHECK(clr_test::same(values[p].momentum, one.momentum));
          }
        }
      }
    }
  }
}

TEST_CASE("bulk: a policy that moves otherwise is told") {
  const Schedule s;
  const auto moves_otherwise = [&s](auto change) {
    Schedule other = s;
    change(other);
    return !clr::moves_alike(s.policy(), other.policy());
  };
  CHECK_FALSE(moves_otherwise([](Schedule& o) { o.max_lr *= 2.0; }));
  CHECK(moves_otherwise([](Schedule& o) { ++o.up; }));
  CHECK(moves_otherwise([](Schedule& o) { ++o.down; }));
  CHECK(moves_otherwise([](Schedule& o) { o.window = clr::Window::hann; }));
  CHECK(moves_otherwise([](Schedule& o) { o.mode = clr::Mode::halved; }));
  Schedule powers = s, others = s;
  powers.mode = others.mode = clr::Mode::power_of_step;
  powers.gamma = 0.9;
  others.gamma = 0.8;
  CHECK_FALSE(clr::moves_alike(powers.policy(), others.policy()));
  powers.mode = clr::Mode::custom;
  CHECK_FALSE(clr::moves_alike(powers.policy(), powers.policy()));
}

TEST_CASE("bulk: nothing is written beside a range") {
  Schedule s;
  s.up = 7;
  s.down = 4;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (std::size_t count = 0; count < 40; ++count) {
      Values v(count + 2);
      isa.kernels->fill_range(s.policy(), 3, static_cast<std::int64_t>(count), nullptr, v.lr.data() + 1,
                              v.momentum.data() + 1);
      INFO(std::string(isa.name), ", count=", count);
      CHECK(v.lr.front() == -1.0);
      CHECK(v.lr.back() == -1.0);
      CHECK(v.momentum.front() == -1.0);
      CHECK(v.momentum.back() == -1.0);
    }
  }
}

TEST_CASE("bulk: a constant amplitude repeats itself exactly for any lengths of cycle and range") {
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const std::uint64_t up : {1u, 2u, 700u, 1024u, 1500u, 5000u}) {
      for (const std::size_t count : {1u, 3u, 2047u, 2048u, 2049u, 6001u}) {
        Schedule s;
        s.up = up;
        s.down = up / 2 + 1;
        INFO(std::string(isa.name), ", ", described(s), ", count=", count);
        Values got(count);
        isa.kernels->fill_range(s.policy(), 17, static_cast<std::int64_t>(count), nullptr, got.lr.data(),
                                got.momentum.data());
        check_same(got, expected(s.policy(), counted(17, count), std::vector<double>(count, 1.0)), "fill_range");
      }
    }
  }
}

TEST_CASE("bulk: fill gives each row what a kernel gives it") {
  Random random(3);
  const std::vector<Schedule> some = clr_test::schedules();
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const std::size_t count : {0u, 1u, 100u}) {
      const std::vector<std::int64_t> steps = counted(12, count);
      const std::vector<double> scales = random_scales(count, random);
      std::vector<Values> got(some.size(), Values(count));
      std::vector<clr::Piece> pieces;
      for (const Schedule& s : some) pieces.push_back(s.piece());
      std::vector<clr::BulkRow> rows;
      for (std::size_t g = 0; g < some.size(); ++g) {
        rows.push_back({&pieces[g], 1, scales.data(), got[g].lr.data(), got[g].momentum.data()});
      }
      for (const bool as_array : {false, true}) {
        const clr::BulkSteps at = {12, as_array ? steps.data() : nullptr, static_cast<std::int64_t>(count)};
        CHECK(clr::fill(rows, at, *isa.kernels));
        for (std::size_t g = 0; g < some.size(); ++g) {
          INFO(std::string(isa.name), ", ", described(some[g]), ", count=", count);
          check_same(got[g], expected(some[g].policy(), steps, scales), as_array ? "array" : "range");
        }
      }
    }
  }
}

TEST_CASE("bulk: ramps have the same bits everywhere, and stay where they arrive") {
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const clr::Policy& policy : clr_test::ramps()) {
      for (const std::uint64_t first : {std::uint64_t{0}, std::uint64_t{40}, (std::uint64_t{1} << 53) - 9, kFar}) {
        const std::size_t count = 67;
        const std::vector<std::int64_t> steps = counted(first, count);
        INFO(std::string(isa.name), ", curve=", static_cast<int>(policy.curve), ", length=", policy.length.hi,
             ", lead=", policy.lead.hi, ", first=", first);
        Values got(count);
        isa.kernels->fill_range(policy, first, count, nullptr, got.lr.data(), got.momentum.data());
        check_same(got, expected(policy, steps, std::vector<double>(count, 1.0)), "fill_range");
        if (first == kFar) CHECK(got.lr.back() == (policy.curve == clr::CurveKind::fall ? 0.1 : 0.5));
      }
    }
  }
}

TEST_CASE("bulk: fill cuts a schedule into its pieces and holds where they stop") {
  Random random(4);
  std::vector<clr::Piece> pieces;
  std::uint64_t next = 0;
  for (const clr::Policy& policy : clr_test::ramps()) {
    pieces.push_back({next, random.below(2) == 0 ? UINT64_MAX : random.below(9), policy});
    next += 1 + random.below(12);
  }
  pieces.push_back({next, 30, Schedule().policy()});
  for (const std::uint64_t first : {std::uint64_t{0}, std::uint64_t{7}, next, next + 100}) {
    const std::size_t count = 300;
    const std::vector<std::int64_t> steps = counted(first, count);
    Values want(count), range(count), any(count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto step = static_cast<std::uint64_t>(steps[i]);
      std::size_t p = pieces.size() - 1;
      while (pieces[p].first > step) --p;
      const clr::Value v =
          clr::baseline_kernels.evaluate(pieces[p].policy, std::min(step - pieces[p].first, pieces[p].last), 1.0);
      want.lr[i] = v.lr;
      want.momentum[i] = v.momentum;
    }
    const auto all = static_cast<std::int64_t>(count);
    CHECK(clr::fill({{pieces.data(), pieces.size(), nullptr, range.lr.data(), range.momentum.data()}},
                    {first, nullptr, all}, clr::baseline_kernels));
    CHECK(clr::fill({{pieces.data(), pieces.size(), nullptr, any.lr.data(), any.momentum.data()}},
                    {0, steps.data(), all}, clr::baseline_kernels));
    check_same(range, want, "range");
    check_same(any, want, "array");
  }
}

TEST_CASE("bulk: first_invalid finds the first value that no optimizer may be given") {
  Schedule s, without;
  s.mode = without.mode = clr::Mode::custom;
  without.base_momentum = without.max_momentum = std::nan("");
  std::vector<double> good = {0.1, 0.2, 0.3}, negative = {0.1, 0.2, -0.1}, infinite = {0.1, HUGE_VAL, 0.1};
  std::vector<double> momentum = {0.9, 0.8, 1.0}, wild = {0.9, 0.9, 1.5}, none(3, std::nan(""));
  const auto place = [](std::vector<clr::BulkRow> rows, std::int64_t count) {
    const clr::BulkPlace found = clr::first_invalid(rows, {0, nullptr, count});
    return std::pair<std::int64_t, std::int64_t>(found.row, found.column);
  };
  const auto nowhere = std::pair<std::int64_t, std::int64_t>(-1, -1);
  const auto at = [](std::int64_t row, std::int64_t column) { return std::pair(row, column); };
  const clr::Piece with = s.piece(), none_at_all = without.piece(), safe = Schedule().piece();
  const clr::BulkRow valid = {&with, 1, nullptr, good.data(), momentum.data()};
  const clr::BulkRow bad_lr = {&with, 1, nullptr, negative.data(), momentum.data()};
  CHECK(place({}, 3) == nowhere);
  CHECK(place({valid, valid}, 3) == nowhere);
  CHECK(place({valid, bad_lr}, 3) == at(1, 2));
  CHECK(place({valid, bad_lr}, 2) == nowhere);
  CHECK(place({{&with, 1, nullptr, infinite.data(), momentum.data()}, bad_lr}, 3) == at(0, 1));
  CHECK(place({{&with, 1, nullptr, good.data(), wild.data()}}, 3) == at(0, 2));
  CHECK(place({{&with, 1, nullptr, good.data(), none.data()}}, 3) == at(0, 0));
  CHECK(place({{&none_at_all, 1, nullptr, good.data(), none.data()}}, 3) == nowhere);
  // Schedules that cannot leave their boundaries are not looked at.
  CHECK(place({{&safe, 1, nullptr, negative.data(), momentum.data()}}, 3) == nowhere);
}
