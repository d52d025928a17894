// CUDA for a host compiler: the threads of a block are threads of the host, blocks run one after another. So the
// sources of the kernels run under the sanitizers, ThreadSanitizer among them.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>
#include <functional>

namespace cuda_on_host {

struct Index {
  unsigned x = 0;
};

// One block's barriers, and places through which the lanes of its warps exchange values.
class Block {
 public:
  explicit Block(unsigned threads);
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  void wait_for_all() { pthread_barrier_wait(&all_); }
  // The lanes of this thread's warp in `mask`: all, or the half that the thread is in.
  void wait_for_lanes(unsigned mask);
  // A value for other lanes to see, between two waits.
  std::uint64_t& place(unsigned thread) { return places_[thread]; }

  static constexpr unsigned kWarp = 32, kHalf = kWarp / 2;
  static constexpr unsigned kMost = 1024;

 private:
  unsigned threads_;
  pthread_barrier_t all_{};
  pthread_barrier_t warps_[kMost / kWarp]{}, halves_[kMost / kHalf]{};
  std::uint64_t places_[kMost]{};
};

extern thread_local Index thread, block;
extern thread_local Block* running;
extern Index grid, block_size;

// Runs `kernel` in all threads of all blocks, of which each has `size`.
void launch(unsigned blocks, unsigned size, const std::function<void()>& kernel);

}  // namespace cuda_on_host
