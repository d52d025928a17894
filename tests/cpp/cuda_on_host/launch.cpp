#include "cuda_on_host/launch.h"

#include <algorithm>
#include <cstdlib>
#include <thread>
#include <vector>

namespace cuda_on_host {

thread_local Index thread, block;
thread_local Block* running = nullptr;
Index grid, block_size;

namespace {

// One for each `width` threads.
void make_barriers(pthread_barrier_t* barriers, unsigned threads, unsigned width) {
  for (unsigned first = 0; first < threads; first += width) {
    pthread_barrier_init(&barriers[first / width], nullptr, std::min(threads - first, width));
  }
}

void destroy_barriers(pthread_barrier_t* barriers, unsigned threads, unsigned width) {
  for (unsigned first = 0; first < threads; first += width) pthread_barrier_destroy(&barriers[first / width]);
}

}  // namespace

Block::Block(unsigned threads) : threads_(threads) {
  make_barriers(&all_, threads, threads);
  make_barriers(warps_, threads, kWarp);
  make_barriers(halves_, threads, kHalf);
}

Block::~Block() {
  destroy_barriers(&all_, threads_, threads_);
  destroy_barriers(warps_, threads_, kWarp);
  destroy_barriers(halves_, threads_, kHalf);
}

void Block::wait_for_lanes(unsigned mask) {
  if (mask == ~0u) {
    pthread_barrier_wait(&warps_[thread.x / kWarp]);
  } else if (mask == 0xffffu << (thread.x % kWarp / kHalf * kHalf)) {
    pthread_barrier_wait(&halves_[thread.x / kHalf]);
  } else {
    std::abort();
  }
}

void launch(unsigned blocks, unsigned size, const std::function<void()>& kernel) {
  grid.x = blocks;
  block_size.x = size;
  for (unsigned b = 0; b < blocks; ++b) {
    Block one(size);
    std::vector<std::thread> all;
    for (unsigned t = 0; t < size; ++t) {
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
