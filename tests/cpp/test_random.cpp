// Random numbers by counting: the same on every instruction set, and as good as chance by simple tests. All at fixed
// keys, so each test passes or fails for good; bounds are 5 standard deviations of what chance gives.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "core/random.h"
#include "support/stochastic_isas.h"

namespace {

using Words = std::vector<std::uint32_t>;
constexpr std::uint64_t kTwoTo32 = std::uint64_t{1} << 32;

Words drawn(std::size_t count, const std::function<std::uint32_t(std::uint64_t)>& draw) {
  Words words(count);
  for (std::size_t i = 0; i < count; ++i) words[i] = draw(i);
  return words;
}

Words stream(std::uint64_t key, std::size_t count, std::uint64_t first = 0) {
  return drawn(count, [=](std::uint64_t i) { return clr::random_bits(key, first + i); });
}

// Sequences in which one argument counts and the others stay.
struct Sequence {
  const char* name;
  std::uint32_t (*draw)(std::uint64_t i);
};

const Sequence kSequences[] = {
    {"elements, key 0", [](std::uint64_t i) { return clr::random_bits(0, i); }},
    {"elements, key 1", [](std::uint64_t i) { return clr::random_bits(1, i); }},
    {"elements", [](std::uint64_t i) { return clr::random_bits(clr::random_key(0, 0, 0), i); }},
    {"every 4096th element", [](std::uint64_t i) { return clr::random_bits(clr::random_key(0, 0, 0), i * 4096); }},
    {"elements past 2^32",
     [](std::uint64_t i) { return clr::random_bits(clr::random_key(0, 0, 0), kTwoTo32 * 3 + i); }},
    {"upper halves", [](std::uint64_t i) { return clr::random_bits(clr::random_key(0, 0, 0), kTwoTo32 * i); }},
    {"updates", [](std::uint64_t i) { return clr::random_bits(clr::random_key(0, i, 0), 0); }},
    {"updates, element 77", [](std::uint64_t i) { return clr::random_bits(clr::random_key(42, i, 3), 77); }},
    {"parameters", [](std::uint64_t i) { return clr::random_bits(clr::random_key(0, 0, i), 0); }},
    {"seeds", [](std::uint64_t i) { return clr::random_bits(clr::random_key(i, 0, 0), 0); }},
    {"upper seeds", [](std::uint64_t i) { return clr::random_bits(clr::random_key(i << 40, 0, 0), 0); }},
};

double chi_square(const Words& words, int byte) {
  std::array<double, 256> counts = {};
  for (const std::uint32_t word : words) ++counts[(word >> (8 * byte)) & 0xff];
  const double expected = static_cast<double>(words.size()) / 256;
  double sum = 0.0;
  for (const double count : counts) sum += (count - expected) * (count - expected) / expected;
  return sum;
}

// By how many standard deviations the number of ones in bit `bit` is off a half.
double imbalance(const Words& words, int bit) {
  double ones = 0.0;
  for (const std::uint32_t word : words) ones += (word >> bit) & 1u;
  const auto n = static_cast<double>(words.size());
  return (ones - n / 2) / (std::sqrt(n) / 2);
}

// The largest imbalance over all pairs of a bit of a and a bit of b.
double worst_correlation(const Words& a, const Words& b) {
  double worst = 0.0;
  Words turned(a.size());
  for (int by = 0; by < 32; ++by) {
    for (std::size_t i = 0; i < a.size(); ++i) turned[i] = a[i] ^ (by == 0 ? b[i] : b[i] << by | b[i] >> (32 - by));
    for (int bit = 0; bit < 32; ++bit) worst = std::max(worst, std::fabs(imbalance(turned, bit)));
  }
  return worst;
}

}  // namespace

TEST_CASE("random: lanes and tails of every instruction set give the same bits, past 2^32 too") {
  const std::uint64_t key = clr::random_key(1, 2, 3);
  for (const auto& k : clr_test::testable_stochastic_kernels()) {
    INFO(std::string(k.isa));
    for (const std::uint64_t first :
         {std::uint64_t{0}, std::uint64_t{1}, kTwoTo32 - 200, kTwoTo32 - 64, kTwoTo32 - 7, kTwoTo32 - 1, kTwoTo32,
          kTwoTo32 * 5 - 31, kTwoTo32 * 5 + 1, (kTwoTo32 << 20) - 100}) {
      for (const std::size_t count : {1u, 3u, 4u, 7u, 8u, 15u, 16u, 17u, 31u, 64u, 65u, 300u}) {
        Words got(count);
        k.random_bits(key, first, static_cast<std::int64_t>(count), got.data());
        CHECK(got == stream(key, count, first));
      }
    }
  }
}

// A checkpoint goes on with the numbers it would have had: they are part of the format. Checked by hand in Python.
TEST_CASE("random: numbers known by heart") {
  CHECK(clr::random_key(0, 0, 0) == 0x238275bc38fcbe91u);
  CHECK(clr::random_key(1, 2, 3) == 0x6ae515c1c0ac7e37u);
  CHECK(clr::random_key(18446744073709551615u, 1099511627776, 7) == 0x25a0b395fcfb3ae9u);
  CHECK(clr::random_bits(clr::random_key(0, 0, 0), 0) == 0x7ee4b470u);
  CHECK(clr::random_bits(clr::random_key(1, 2, 3), 1) == 0x6d79cfc0u);
  CHECK(clr::random_bits(clr::random_key(1, 2, 3), 4294967295) == 0x5ca6e562u);
  CHECK(clr::random_bits(clr::random_key(1, 2, 3), 4294967296) == 0x1e1db153u);
  CHECK(clr::random_bits(clr::random_key(1, 2, 3), 1099511627781) == 0xeb7c2d0eu);
}

TEST_CASE("random: bytes are evenly spread along every argument") {
  for (const Sequence& sequence : kSequences) {
    const Words words = drawn(1 << 18, sequence.draw);
    for (int byte = 0; byte < 4; ++byte) {
      INFO(std::string(sequence.name), ", byte ", byte);
      CHECK(std::fabs(chi_square(words, byte) - 255.0) < 5 * std::sqrt(2.0 * 255.0));
    }
  }
}

TEST_CASE("random: bits are balanced along every argument and neighbours do not know each other") {
  for (const Sequence& sequence : kSequences) {
    const Words words = drawn((1 << 16) + 3, sequence.draw);
    INFO(std::string(sequence.name));
    for (int bit = 0; bit < 32; ++bit) CHECK(std::fabs(imbalance(words, bit)) < 5);
    for (const std::ptrdiff_t lag : {1, 2, 3}) {
      CHECK(worst_correlation({words.begin(), words.end() - lag}, {words.begin() + lag, words.end()}) < 5);
    }
  }
}

TEST_CASE("random: streams of keys that differ in one bit do not know each other") {
  constexpr std::size_t size = 1 << 13;
  for (const std::uint64_t key : {std::uint64_t{0}, clr::random_key(0, 0, 0)}) {
    const Words words = stream(key, size);
    for (int bit = 0; bit < 64; ++bit) {
      INFO("key ", key, ", bit ", bit);
      CHECK(worst_correlation(words, stream(key ^ (std::uint64_t{1} << bit), size)) < 5);
    }
  }
}

TEST_CASE("random: streams of neighbouring seeds updates and parameters do not know each other") {
  constexpr std::size_t size = 1 << 16;
  const Words words = stream(clr::random_key(7, 7, 7), size);
  for (const std::uint64_t key : {clr::random_key(8, 7, 7), clr::random_key(7, 8, 7), clr::random_key(7, 7, 8),
                                  clr::random_key(8, 6, 7), clr::random_key(7, 8, 6)}) {
    CHECK(worst_correlation(words, stream(key, size)) < 5);
  }
  CHECK(worst_correlation(words, stream(clr::random_key(7, 7, 7), size, kTwoTo32)) < 5);
}

TEST_CASE("random: elements that differ in one bit do not know each other") {
  constexpr std::size_t size = 1 << 13;
  const std::uint64_t key = clr::random_key(3, 1, 4);
  const Words words = stream(key, size);
  for (int bit = 0; bit < 64; ++bit) {
    const std::uint64_t other = std::uint64_t{1} << bit;
    // A pair once, not once from each side.
    Words ours, theirs;
    for (std::uint64_t i = 0; i < size; ++i) {
      if ((i & other) != 0) continue;
      ours.push_back(words[i]);
      theirs.push_back(clr::random_bits(key, i | other));
    }
    INFO("bit ", bit);
    CHECK(worst_correlation(ours, theirs) < 5);
  }
}

TEST_CASE("random: no two triples of seed update and parameter have the same key") {
  std::vector<std::uint64_t> keys;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    for (std::uint64_t update = 0; update < 40; ++update) {
      for (std::uint64_t parameter = 0; parameter < 40; ++parameter) {
        keys.push_back(clr::random_key(seed, update, parameter));
        keys.push_back(clr::random_key(seed << 32, update << 40, (parameter + 1) << 56));
      }
    }
  }
  std::sort(keys.begin(), keys.end());
  CHECK(std::adjacent_find(keys.begin(), keys.end()) == keys.end());
}
