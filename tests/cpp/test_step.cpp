// A plan run in parts, by several threads at once, gives what one thread gives.
#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "cpu/step.h"
#include "support/isas.h"
#include "support/model.h"

using clr::Cut;
using clr_test::Model;
using clr_test::Updates;

namespace {

void run_in_threads(Model& model, const clr::Isa& isa, int parts) {
  std::vector<Cut> cuts;
  model.plan.cut(parts, cuts);
  std::vector<std::thread> threads;
  for (std::size_t part = 0; part + 1 < cuts.size(); ++part) {
    threads.emplace_back([&, part] { clr::run_between(model.plan, *isa.kernels, cuts[part], cuts[part + 1]); });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

TEST_CASE("step: any number of threads gives the bits of one") {
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    for (const Updates updates : {Updates::plain, Updates::whole}) {
      for (const int parts : {1, 2, 3, 4, 5, 6, 7, 16}) {
        Model serial(60, updates), threaded(60, updates);
        for (int step = 0; step < 3; ++step) {
          serial.run_serially(*isa.kernels);
          run_in_threads(threaded, isa, parts);
        }
        INFO(std::string(isa.name), ", parts=", parts, updates == Updates::whole ? ", whole updates" : "");
        CHECK(serial.has_the_bits_of(threaded));
      }
    }
  }
}

TEST_CASE("step: instruction sets with fma give one another's bits") {
  std::vector<clr::Isa> isas;
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    if (clr_test::has_fma(isa)) isas.push_back(isa);
  }
  for (const Updates updates : {Updates::plain, Updates::whole}) {
    for (const clr::Isa& isa : isas) {
      Model model(60, updates), first(60, updates);
      for (int step = 0; step < 3; ++step) {
        model.run_serially(*isa.kernels);
        first.run_serially(*isas.front().kernels);
      }
      INFO(std::string(isa.name), " and ", std::string(isas.front().name));
      CHECK(model.has_the_bits_of(first));
    }
  }
}

TEST_CASE("step: run_step without torch is serial and complete") {
  for (const clr::Isa& isa : clr_test::testable_isas()) {
    Model serial(60, Updates::whole), run(60, Updates::whole);
    std::vector<Cut> cuts;
    serial.run_serially(*isa.kernels);
    CHECK(clr::run_step(run.plan, *isa.kernels, cuts));
    CHECK(serial.has_the_bits_of(run));
  }
}
