// Threads without torch in the process: none, and that is said.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "cpu/parallel.h"

TEST_CASE("parallel: without torch one thread and a reason") {
  CHECK(clr::thread_count() == 1);
  CHECK(clr::thread_backend().rfind("serial (", 0) == 0);
}

TEST_CASE("parallel: every part runs once") {
  for (const int parts : {0, 1, 2, 9}) {
    std::vector<int> count(10);
    const bool complete = clr::run_parts(
        parts,
        [](int part, void* context) { ++(*static_cast<std::vector<int>*>(context))[static_cast<std::size_t>(part)]; },
        &count);
    CHECK(complete);
    for (int part = 0; part < 10; ++part) CHECK(count[static_cast<std::size_t>(part)] == (part < parts ? 1 : 0));
  }
}
