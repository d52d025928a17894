// A library with libtorch_cpu's name and the two functions that csrc/cpu/parallel.cpp looks for in it: one thread a
// part, so that the sanitizers see the threads that a step runs on.
#include "torch_stand_in/pool.h"

#include <atomic>
#include <thread>
#include <vector>

namespace {

std::uint32_t threads = 1;
bool fails = false;
std::atomic<int> calls{0};

}  // namespace

extern "C" {

void stand_in_set_threads(std::uint32_t count) { threads = count; }
void stand_in_set_failing(bool failing) { fails = failing; }
int stand_in_calls() { return calls; }

std::int32_t torch_get_num_threads(std::uint32_t* count) {
  *count = threads;
  return 0;
}

std::int32_t torch_parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain,
                                void (*body)(std::int64_t, std::int64_t, void*), void* context) {
  ++calls;
  std::vector<std::thread> pool;
  for (std::int64_t i = begin; i < end; i += grain) {
    pool.emplace_back(body, i, i + grain < end ? i + grain : end, context);
  }
  for (std::thread& thread : pool) thread.join();
  return fails ? 1 : 0;
}
}
