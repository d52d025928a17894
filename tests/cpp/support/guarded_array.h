// Arrays with no memory to spare: a page that faults lies behind them, canaries lie around them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#if defined(_WIN32)
#include <memory>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace clr_test {

// Memory that ends where reading faults. On Windows an ordinary allocation.
class GuardedPages {
 public:
  explicit GuardedPages(std::size_t at_least) {
#if defined(_WIN32)
    size_ = at_least;
    heap_.reset(new unsigned char[size_]);
    begin_ = heap_.get();
#else
    page_ = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    size_ = (at_least + page_ - 1) / page_ * page_;
    void* const all = mmap(nullptr, size_ + 2 * page_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) throw std::runtime_error("mmap failed");
    begin_ = static_cast<unsigned char*>(all) + page_;
    if (mprotect(begin_, size_, PROT_READ | PROT_WRITE) != 0) throw std::runtime_error("mprotect failed");
#endif
  }
  ~GuardedPages() {
#if !defined(_WIN32)
    munmap(begin_ - page_, size_ + 2 * page_);
#endif
  }
  GuardedPages(const GuardedPages&) = delete;
  GuardedPages& operator=(const GuardedPages&) = delete;

  unsigned char* begin() const { return begin_; }
  unsigned char* end() const { return begin_ + size_; }

 private:
  unsigned char* begin_ = nullptr;
  std::size_t size_ = 0;
#if defined(_WIN32)
  std::unique_ptr<unsigned char[]> heap_;
#else
  std::size_t page_ = 0;
#endif
};

template <class T>
class GuardedArray {
 public:
  explicit GuardedArray(std::size_t most) : pages_((most + kMostGap) * sizeof(T)) {}

  // Puts `values` at the end of the memory but for `gap` elements, and canaries everywhere else. With a gap of 0 the
  // next byte faults; other gaps misalign the array.
  void put(const std::vector<T>& values, std::size_t gap) {
    std::memset(pages_.begin(), kCanary, static_cast<std::size_t>(pages_.end() - pages_.begin()));
    size_ = values.size();
    data_ = reinterpret_cast<T*>(pages_.end()) - gap - size_;
    if (size_ != 0) std::memcpy(data_, values.data(), size_ * sizeof(T));
  }

  T* data() const { return data_; }
  std::vector<T> values() const { return std::vector<T>(data_, data_ + size_); }

  bool canaries_live() const {
    const auto* const first = reinterpret_cast<const unsigned char*>(data_);
    const auto* const last = reinterpret_cast<const unsigned char*>(data_ + size_);
    return all_canaries(pages_.begin(), first) && all_canaries(last, pages_.end());
  }

  static constexpr std::size_t kMostGap = 64;

 private:
  static constexpr unsigned char kCanary = 0xa5;

  static bool all_canaries(const unsigned char* from, const unsigned char* to) {
    for (; from != to; ++from) {
      if (*from != kCanary) return false;
    }
    return true;
  }

  GuardedPages pages_;
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace clr_test
