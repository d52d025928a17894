#include "cuda_on_host/launch.h"

#include <thread>
#include <vector>

namespace cuda_on_host {

thread_local Index thread, block;
thread_local Block* running = nullptr;
Index grid;

Block::Block(unsigned threads) : threads_(threads) {
  pthread_barrier_init(&all_, nullptr, threads);
  for (unsigned first = 0; first < threads; first += kWarp) {
    pthread_barrier_init(&warps_[first / kWarp], nullptr, threads - first < kWarp ? threads - first : kWarp);
  }
}

Block::~Block() {
  pthread_barrier_destroy(&all_);
  for (unsigned first = 0; first < threads_; first += kWarp) pthread_barrier_destroy(&warps_[first / kWarp]);
}

unsigned Block::lane_of_block() { return thread.x; }

void launch(unsigned blocks, unsigned threads, const std::function<void()>& kernel) {
  grid.x = blocks;
  for (unsigned b = 0; b < blocks; ++b) {
    Block one(threads);
    std::vector<std::thread> all;
    for (unsigned t = 0; t < threads; ++t) {
      all.emplace_back([&, b, t] {
        thread.x = t;
        block.x = b;
        running = &one;
        kernel();
      });
    }
    for (std::thread& each : all) each.join();
  }
}

}  // namespace cuda_on_host
