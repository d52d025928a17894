// Steps and bulk evaluation on torch's threads, played by a stand-in: the bits of one thread, and failures reported.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "cpu/bulk.h"
#include "cpu/norm.h"
#include "cpu/parallel.h"
#include "cpu/step.h"
#include "support/isas.h"
#include "support/model.h"
#include "support/norm_work.h"
#include "support/policies.h"
#include "torch_stand_in/pool.h"

using clr_test::Model;

namespace {

// The stand-in with some threads, for one test.
class Pool {
 public:
  explicit Pool(std::uint32_t threads) : calls_before_(stand_in_calls()) { stand_in_set_threads(threads); }
  ~Pool() {
    stand_in_set_threads(1);
    stand_in_set_failing(false);
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  int calls() const { return stand_in_calls() - calls_before_; }

 private:
  int calls_before_;
};

const clr::CpuKernels& kernels() { return *clr::choose_isa(nullptr).kernels; }

// Two groups' worth of values, enough for threads to pay.
struct Bulk {
  static constexpr std::int64_t count = 40001;
  std::vector<double> values = std::vector<double>(4 * count);
  clr::Piece piece;
  std::vector<clr::BulkRow> rows;
  explicit Bulk(const clr_test::Schedule& schedule) : piece(schedule.piece()) {
    for (int g = 0; g < 2; ++g) {
      double* const lr = values.data() + 2 * g * count;
      rows.push_back({&piece, 1, nullptr, lr, lr + count});
    }
  }
};

}  // namespace

TEST_CASE("threads: torch's are found and their number is torch's") {
  const Pool pool(5);
  CHECK(clr::thread_backend() == "torch");
  CHECK(clr::thread_count() == 5);
}

TEST_CASE("threads: every part runs once") {
  const Pool pool(4);
  std::vector<int> count(4);
  CHECK(clr::run_parts(4, [](int part, void* context) { ++static_cast<int*>(context)[part]; }, count.data()));
  CHECK(count == std::vector<int>(4, 1));
  CHECK(pool.calls() == 1);
}

TEST_CASE("threads: a step gives the bits of one thread") {
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const std::uint32_t threads : {2u, 3u, 8u}) {
      const Pool pool(threads);
      Model serial(200), threaded(200);
      std::vector<clr::Cut> cuts;
      for (int step = 0; step < 3; ++step) {
        serial.run_serially(*isa.kernels);
        REQUIRE(clr::run_step(threaded.plan, *isa.kernels, cuts));
      }
      INFO(std::string(isa.name), ", threads=", threads);
      CHECK(serial.has_the_bits_of(threaded));
      CHECK(pool.calls() == 3);
    }
  }
}

TEST_CASE("threads: norms have the bits of one thread") {
  clr_test::NormWork work;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    clr::Norms serial;
    REQUIRE(clr::run_norms(work.plan, *isa.kernels, 0.0, serial));
    for (const std::uint32_t threads : {1u, 2u, 3u, 7u}) {
      const Pool pool(threads);
      clr::Norms threaded, check;  // new: in used ones a chunk that nobody measured would still have its result
      INFO(std::string(isa.name), ", threads=", threads);
      REQUIRE(clr::run_norms(work.plan, *isa.kernels, 0.0, threaded));
      CHECK(clr_test::same(serial, threaded));
      REQUIRE(clr::run_finite_check(work.plan, *isa.kernels, check));
      CHECK(check.total.finite);
      CHECK(pool.calls() == (threads == 1 ? 0 : 2));
    }
  }
}

TEST_CASE("threads: a small step wakes nobody") {
  const Pool pool(4);
  Model model(10);
  std::vector<clr::Cut> cuts;
  REQUIRE(model.plan.parameter_bytes() < 64 * 1024);
  CHECK(clr::run_step(model.plan, kernels(), cuts));
  clr::Norms norms;
  CHECK(clr::run_norms(model.plan, kernels(), 0.0, norms));
  CHECK(pool.calls() == 0);
}

TEST_CASE("threads: slots that share memory are updated as listed") {
  const Pool pool(4);
  std::vector<float> weight(40000, 1.0f), gradient(40000, 1.0f);
  clr::StepPlan plan;
  plan.groups = {{0.5, 0.0, 0.0, 0.0, false, false}};
  const clr::Slot slot = {weight.data(), gradient.data(), nullptr, 40000, 0, clr::DType::float32, true};
  plan.slots = {slot, slot, slot};
  plan.in_order = plan.has_overlap();
  REQUIRE(plan.in_order);
  std::vector<clr::Cut> cuts;
  CHECK(clr::run_step(plan, kernels(), cuts));
  CHECK(weight == std::vector<float>(40000, 1.0f - 3 * 0.5f));
  CHECK(pool.calls() == 0);
}

TEST_CASE("threads: bulk values are those of one thread") {
  clr_test::Schedule schedule;
  schedule.window = clr::Window::hann;
  schedule.mode = clr::Mode::power_of_step;
  schedule.gamma = 0.9999;
  std::vector<std::int64_t> steps(Bulk::count);
  for (std::size_t i = 0; i < steps.size(); ++i) steps[i] = static_cast<std::int64_t>(i * 7919 % 100000);
  for (const bool as_array : {false, true}) {
    const clr::BulkSteps at = {3, as_array ? steps.data() : nullptr, Bulk::count};
    Bulk serial(schedule), threaded(schedule);
    REQUIRE(clr::fill(serial.rows, at, kernels()));
    const Pool pool(3);
    REQUIRE(clr::fill(threaded.rows, at, kernels()));
    CHECK(pool.calls() == 1);
    CHECK(serial.values == threaded.values);
  }
}

TEST_CASE("threads: a failure of the pool is reported") {
  const Pool pool(2);
  stand_in_set_failing(true);
  Model model(200);
  std::vector<clr::Cut> cuts;
  CHECK_FALSE(clr::run_step(model.plan, kernels(), cuts));
  clr::Norms norms;
  CHECK_FALSE(clr::run_norms(model.plan, kernels(), 0.0, norms));
  CHECK_FALSE(clr::run_finite_check(model.plan, kernels(), norms));
  Bulk bulk{clr_test::Schedule()};
  CHECK_FALSE(clr::fill(bulk.rows, {0, nullptr, Bulk::count}, kernels()));
}
