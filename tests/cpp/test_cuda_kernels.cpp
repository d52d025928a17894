// The kernels for GPUs, compiled for the host: in bounds, without races, and one number at a time gives the same bits.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "core/average.h"
#include "cuda/chunks.h"
#include "cuda_on_host/kernels.h"
#include "cuda_on_host/launch.h"
#include "support/whole_tensors.h"

using clr_test::Around;
using clr_test::Number;
using clr_test::Random;
using clr_test::Variant;
using clr_test::WholeTensors;

namespace {

// ThreadSanitizer takes 0.3 s to make the threads of a block. What it looks for, all kinds have in common.
#if defined(__SANITIZE_THREAD__)
#define CLR_KINDS clr_test::Float32Own, clr_test::Bfloat16Stochastic
#else
#define CLR_KINDS CLR_ALL_KINDS
#endif

constexpr Variant kNesterov = {true, false, true, false, 0.0, 5e-4};
constexpr Variant kFirst = {false, true, true, true, 0.25, 0.0};
constexpr std::uint64_t kSeed = 7;

// Tables of one device, with one group.
class Tables {
 public:
  Tables(const Variant& v, const Around& around) {
    const clr::GroupValues values = clr_test::group_of(v);
    settings_.pieces = &piece_;
    settings_.piece_count = 1;
    settings_.momentum = values.momentum;
    settings_.dampening = values.dampening;
    settings_.weight_decay = values.weight_decay;
    settings_.nesterov = values.nesterov;
    settings_.maximize = values.maximize;
    if (around.has_average) settings_.averaging = clr::Averaging::exponential;
    settings_.ema_decay = 0.75;
    settings_.seed = kSeed;
    settings_.counts_updates = true;
    progress_[0].lr = values.lr;
    progress_[0].momentum = values.momentum;
    progress_[0].average_weight = around.average_weight;
    progress_[0].n_averaged = around.first_average ? 0 : 1;
    piece_.policy = clr::Policy{};
    piece_.policy.up = piece_.policy.down = piece_.policy.decay_steps = 1;
    step_.gradients = around.gradients;
  }

  // Number `position` of all.
  void add(clr::Slot slot, const Variant& v, const Around& around) {
    slot.random_key = slots_.size();
    slots_.push_back(slot);
    buffer_holds_.push_back(v.first ? 0 : 1);
    average_holds_.push_back(around.first_average ? 0 : 1);
  }

  // With the kernel of one dtype if all are `plain`.
  void run(unsigned blocks, bool plain) {
    progress_[1] = progress_[0];
    state_.settings = &settings_;
    state_.progress = progress_;
    state_.group_count = 1;
    state_.buffer_holds = reinterpret_cast<bool*>(buffer_holds_.data());
    state_.average_holds = reinterpret_cast<bool*>(average_holds_.data());
    state_.report = &report_;
    clr::Chunks chunks;
    clr::cut_into_chunks(slots_, chunks);
    clr::DeviceWork work{};
    work.slots = slots_.data();
    work.by_size = chunks.by_size.data();
    work.slot_count = static_cast<std::uint32_t>(slots_.size());
    work.chunk_count = static_cast<std::uint32_t>(chunks.by_size.size());
    work.shared_count = chunks.shared_count;
    work.number = 1;
    const auto kernels = {clr_step_float32, clr_step_float64, clr_step_bfloat16, clr_step_float16};
    const auto kernel = plain ? kernels.begin()[static_cast<int>(slots_[0].dtype)] : clr_step;
    const unsigned threads = plain ? clr::kPlainThreads : clr::kStepThreads;
    cuda_on_host::launch(blocks, threads, [&] { kernel(&state_, work, step_); });
  }

  static std::uint64_t key(std::uint64_t position) { return clr::random_key(kSeed, 0, position); }

  const clr::GroupProgress& progress() const { return progress_[state_.turn]; }
  const clr::DeviceState& state() const { return state_; }
  const std::vector<char>& buffer_holds() const { return buffer_holds_; }

 private:
  clr::Piece piece_{};
  clr::GroupSettings settings_{};
  clr::GroupProgress progress_[2]{};
  clr::DeviceState state_{};
  clr::DeviceReport report_{};
  clr::DeviceStep step_{};
  std::vector<clr::Slot> slots_;
  std::vector<char> buffer_holds_, average_holds_;
};

// Behind `gap` elements, which stay as they are.
template <class T>
void* behind(std::vector<T>& array, std::size_t gap) {
  return array.data() + gap;
}

template <class K>
clr::Slot slot_behind(WholeTensors<K>& t, std::size_t gap, const Variant& v, const Around& around) {
  return clr_test::slot_of<K>(v, around, t.size() - gap, behind(t.parameter, gap), behind(t.gradient, gap),
                              behind(t.unscaled, gap), behind(t.buffer, gap), behind(t.companion, gap),
                              behind(t.average, gap));
}

template <class K>
void check(const Variant& v, const Around& around, unsigned blocks, bool plain = false) {
  Random random(blocks);
  std::vector<WholeTensors<K>> got, want;
  Tables tables(v, around);
  for (const std::size_t size : {1u, 37u, 401u, 16384u + 45u}) got.emplace_back(size, random, 0);
  want = got;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const std::size_t gap = i % 2;
    tables.add(slot_behind(got[i], gap, v, around), v, around);
    for (std::size_t j = gap; j < want[i].size(); ++j) {
      Number<K> n = want[i].number(j);
      const std::uint32_t bits = clr::random_bits(Tables::key(i), j - gap);
      clr_test::reference_whole<K>(true, clr_test::group_of(v), v, around, bits, n);
      want[i].put(j, n);
    }
  }
  tables.run(blocks, plain);
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(clr_test::differences(got[i], want[i]) == "");
  CHECK(tables.progress().step == 1);
  CHECK(tables.progress().n_updates == 1);
  CHECK(tables.state().counts.applied == 1);
  CHECK(tables.state().ticket == 0);
  CHECK(tables.state().next_unit == 0);
  CHECK(tables.state().turn == 1);
  for (const char holds : tables.buffer_holds()) CHECK(holds == (v.has_buffer || !v.first ? 1 : 0));
}

Around averaging() {
  Around around;
  around.gradients = {0.3, 0.7, 0.125};
  around.has_average = around.writes_unscaled = true;
  around.average_weight = 0.25;
  return around;
}

}  // namespace

TEST_CASE_TEMPLATE("step kernel: plain updates", K, CLR_KINDS) { check<K>(kNesterov, Around(), 2); }

TEST_CASE_TEMPLATE("step kernel: plain updates of one dtype", K, CLR_PLAIN_KINDS) {
  check<K>(kNesterov, Around(), 2, true);
  check<K>(kFirst, Around(), 1, true);
}

TEST_CASE_TEMPLATE("step kernel: first updates with everything around them", K, CLR_KINDS) {
  check<K>(kFirst, averaging(), 3);
}
