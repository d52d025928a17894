// What devices are told, and when, without a device: plans that write down what is asked of them.
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cuda/device_steps.h"
#include "support/policies.h"

namespace {

struct Told {
  std::vector<std::string> calls;
  std::vector<clr::GroupSettings> settings;
  clr::DeviceProgress counted;
  clr::DeviceReport reported{};
};

std::map<int, Told> told;
bool captures = false;

const clr::Host host{[](int) -> void* { return nullptr; }, [](const std::function<void()>& blocks) { blocks(); },
                     nullptr, nullptr};

class WrittenPlan final : public clr::DevicePlan {
 public:
  explicit WrittenPlan(int ordinal) : ordinal_(ordinal) {}

  void set_groups(void*, const std::vector<clr::GroupSettings>& settings, const clr::Cycles&,
                  const std::vector<clr::TabulatedScales>&, bool other, std::uint64_t) override {
    note(other ? "other groups" : "groups");
    told[ordinal_].settings = settings;
  }
  bool has_groups(const std::vector<clr::GroupSettings>& settings) const override {
    return settings.size() == told[ordinal_].settings.size();
  }
  void set_progress(void*, const std::vector<clr::GroupProgress>& progress) override {
    note("progress");
    told[ordinal_].counted.groups = progress;
  }
  void set_parameters(void*, std::size_t count) override { note("parameters " + std::to_string(count)); }
  void set_state(void*, const std::vector<clr::StateChange>& changes) override {
    if (!changes.empty()) note("state");
  }
  void set_work(void*, const std::vector<clr::Slot>& slots, const clr::SharedNumbers& shared, bool) override {
    note((shared.numbers == nullptr ? "work " : "shared work ") + std::to_string(slots.size()));
  }
  void set_captured_work(const std::vector<clr::Slot>&, const clr::SharedNumbers&, bool) override {
    note("captured work");
  }
  bool has_work(const std::vector<clr::Slot>& slots) const override { return slots.size() == held_; }
  void measure(void*, const clr::DeviceStep&) override { note("measure"); }
  void share(void*, const clr::DeviceStep&) override { note("share"); }
  void step(void*, const clr::DeviceStep&) override { note("step"); }
  void release(void*, const clr::Slot&, const clr::DeviceStep&) override { note("release"); }
  void wait_for_releases(void*) override {}
  void mark(void*) override { note("mark"); }
  clr::DeviceProgress read(void*) override {
    note("read");
    return told[ordinal_].counted;
  }
  clr::DeviceReport reported() const override { return told[ordinal_].reported; }

 private:
  void note(const std::string& call) const { told[ordinal_].calls.push_back(call); }
  int ordinal_;
  std::size_t held_ = 2;
};

// An optimizer of one group, with a parameter on each of these devices.
struct Owner {
  clr::Piece piece = {0, UINT64_MAX, clr_test::Schedule().policy()};
  clr::GroupSettings settings{};
  clr::GroupProgress progress{};
  clr::StepPlan plan;
  clr::GradientOptions options;
  clr::DeviceSteps steps{host};
  float memory[4] = {};

  explicit Owner(const std::vector<int>& devices) {
    told.clear();
    captures = false;
    settings.pieces = &piece;
    settings.piece_count = 1;
    for (std::size_t i = 0; i < devices.size(); ++i) {
      clr::Slot slot{};
      slot.parameter = slot.buffer = &memory[i];
      slot.gradient = &memory[i];
      slot.size = 1;
      slot.random_key = i;
      slot.device = static_cast<int16_t>(devices[i]);
      plan.slots.push_back(slot);
    }
    plan.device_slots = plan.parameter_count = devices.size();
    plan.records = {{&settings, &progress, 1, 1, 2}};
  }

  clr::Measured step(const clr::StepRequest& request = {}) {
    steps.measure(plan, options, request);
    const clr::Measured measured = steps.decide(plan, options, request);
    steps.run(plan);
    return measured;
  }
  std::vector<std::string> calls(int device = 0) {
    std::vector<std::string> since;
    since.swap(told[device].calls);
    return since;
  }
};

using Calls = std::vector<std::string>;

}  // namespace

namespace clr {

bool is_captured(int, void*) { return captures; }

std::unique_ptr<DevicePlan> make_device_plan(int ordinal, const Host&) {
  return std::make_unique<WrittenPlan>(ordinal);
}

}  // namespace clr

TEST_CASE("device steps: everything is told once, then only what has changed") {
  Owner owner({0, 0});
  CHECK(!owner.steps.are_used());
  owner.steps.note_state(0, {0, false, false});
  owner.step();
  CHECK(owner.calls() == Calls{"progress", "other groups", "parameters 2", "state", "work 2", "step"});
  owner.step();
  CHECK(owner.calls() == Calls{"groups", "work 2", "step"});
  owner.plan.records[0].position_version = 7;
  owner.step();
  CHECK(owner.calls() == Calls{"progress", "groups", "work 2", "step"});
  owner.steps.forget_parameters();
  owner.options.max_norm = 1.0;
  owner.step();
  CHECK(owner.calls() == Calls{"groups", "parameters 2", "work 2", "measure", "step"});
}

TEST_CASE("device steps: each device works on its own slots") {
  Owner owner({0, 1, 1});
  owner.step();
  CHECK(owner.calls(0).back() == "step");
  CHECK(owner.calls(1)[3] == "work 2");
  owner.options.max_norm = 1.0;
  CHECK_THROWS_WITH(owner.step(), "max_grad_norm needs all gradients on one device: parameters lie on several");
}

TEST_CASE("device steps: what cannot be run is refused before anything is told") {
  Owner owner({0});
  owner.plan.in_order = true;
  owner.plan.copied = {{nullptr, nullptr}};
  CHECK_THROWS(owner.step());
  owner.plan.in_order = false;
  owner.plan.device_slots = 0;
  CHECK_THROWS_WITH(owner.step(),
                    "parameters have been moved from cuda to the cpu: make another optimizer for them, and load this "
                    "one's state_dict() into it");
  owner.plan.slots.push_back(owner.plan.slots[0]);
  owner.plan.device_slots = 1;
  CHECK_THROWS_WITH(owner.step(),
                    "parameters on cpu and on cuda cannot be updated by one optimizer: make one for each");
  owner.plan.slots.pop_back();
  owner.plan.device_slots = 1;
  float number = 1.0f;
  clr::StepRequest request;
  request.device_found_inf = {&number, 3};
  CHECK_THROWS_WITH(owner.step(request), "grad_scale and found_inf must lie on the device of the parameters, cuda:0");
  CHECK(owner.calls().empty());
}

TEST_CASE("device steps: the owner learns what was counted") {
  Owner owner({0});
  owner.settings.override_number = 5;
  owner.settings.lr_override = 0.25;
  owner.steps.note_state(0, {0, false, false});
  owner.step();
  CHECK(!owner.steps.is_behind({2}));
  CHECK(owner.steps.is_behind({3}));  // somebody has moved the group
  told[0].reported = {0, 1, 0, 0, 0, true};
  CHECK(owner.steps.is_behind({2}));  // a step was skipped
  told[0].counted.groups[0].step = 9;
  told[0].counted.buffer_holds = {0};
  told[0].counted.average_holds = {0};
  const clr::DeviceSteps::Counted counted = owner.steps.synchronise({4, 2});
  CHECK(!counted.groups[0]);
  REQUIRE(counted.groups[1]);
  CHECK(counted.groups[1]->progress.step == 9);
  REQUIRE(counted.groups[1]->pending);
  CHECK(counted.groups[1]->pending->lr == 0.25);
  CHECK(counted.empty_buffers == std::vector<std::size_t>{0});
  CHECK(counted.empty_averages.empty());
  owner.calls();
  CHECK(!owner.steps.synchronise({2}).groups[0]);  // nothing has been launched since
  CHECK(owner.calls().empty());
}

TEST_CASE("device steps: a graph holds a step whose tables are there") {
  Owner owner({0});
  owner.step();
  owner.calls();
  captures = true;
  CHECK(owner.steps.notice_capture());
  CHECK(owner.step().is_recorded);
  CHECK(owner.calls() == Calls{"captured work", "step"});
  CHECK_THROWS(owner.steps.last_step());
  owner.plan.makes_state = true;
  CHECK_THROWS_WITH(owner.step(),
                    "a step that makes a buffer or an average cannot be captured in a CUDA graph: call step() once "
                    "before you capture it");
  captures = false;
  CHECK(!owner.steps.notice_capture());
  owner.plan.makes_state = false;
  CHECK(!owner.step().is_recorded);
}

TEST_CASE("device steps: processes add up between two launches") {
  Owner owner({0, 0});
  owner.options.max_norm = 1.0;
  double numbers[5] = {};
  owner.plan.shared.numbers = numbers;
  owner.plan.shared.device = 0;
  owner.step();
  owner.calls();
  owner.step();
  CHECK(owner.calls() == Calls{"groups", "shared work 2", "measure", "shared work 2", "share", "step"});
  CHECK(!owner.steps.is_behind({2}));
  told[0].reported.refused = told[0].counted.counts.refused = 1;
  CHECK(owner.steps.is_behind({2}));
  CHECK(owner.steps.synchronise({2}).refused);
  CHECK(!owner.steps.is_behind({2}));
  captures = true;
  owner.steps.notice_capture();
  owner.calls();
  owner.step();
  CHECK(owner.calls() == Calls{"captured work", "measure", "share", "step"});
  owner.plan.slots.pop_back();
  CHECK_THROWS(owner.step());
  captures = false;
  Owner apart({0, 1});
  apart.plan.shared.numbers = numbers;
  apart.plan.shared.device = 0;
  CHECK_THROWS_WITH(apart.step(),
                    "adding up over processes needs all gradients on one device: parameters lie on several");
}

TEST_CASE("device steps: without a slot, the numbers show which device takes part") {
  Owner owner({});
  owner.options.max_norm = 1.0;
  double numbers[5] = {};
  owner.plan.shared.numbers = numbers;
  CHECK_THROWS_WITH(owner.step(),
                    "parameters have been moved from cuda to the cpu: make another optimizer for them, and load this "
                    "one's state_dict() into it");
  owner.plan.shared.device = 3;
  owner.step();
  CHECK(owner.calls(3).back() == "step");
}

TEST_CASE("device steps: a norm that is not finite is an error where that was asked for") {
  Owner owner({0});
  owner.options.max_norm = 1.0;
  owner.options.error_if_nonfinite = true;
  told[0].counted.norm = INFINITY;
  CHECK_THROWS_WITH(owner.step(),
                    "the norm of all gradients is inf: with error_if_nonfinite=True that is an error, and nothing has "
                    "changed");
  told[0].counted.norm = 2.0;
  told[0].counted.clip_coefficient = 0.5;
  owner.step();
  CHECK(owner.steps.last_step().gradient_norm == 2.0);
  CHECK(owner.steps.last_step().clip_coefficient == 0.5);
}
