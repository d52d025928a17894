// Random numbers by counting: a number is a function of a key and of an element's place, so it depends neither on the
// order of work nor on how it is cut among threads, lanes or devices. Not for cryptography.
#pragma once

#include "core/portable.h"

namespace clr {

// One to one, and every bit of x reaches every bit (the finaliser of splitmix64).
CLR_INLINE uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// One to one (multiply and xorshift, with constants of Wellons' search for low bias). `Bits`: uint32_t or lanes of it.
template <class Bits>
CLR_INLINE Bits mixed_32(Bits x) {
  x = (x ^ (x >> 16)) * 0x21f0aaadu;
  x = (x ^ (x >> 15)) * 0xd35a2d97u;
  return x ^ (x >> 15);
}

// 2^64 over the golden ratio, odd: its multiples are spread evenly.
constexpr uint64_t kSpread = 0x9e3779b97f4a7c15u;

// Returns the key of one parameter's numbers in one update. Triples that differ in one place have different keys.
CLR_INLINE uint64_t random_key(uint64_t seed, uint64_t update, uint64_t parameter) {
  return mixed(mixed(mixed(seed + kSpread) + update + kSpread) + parameter + kSpread);
}

// Returns the two words of a key for the 2^32 elements that share the upper half of their number. Another upper half
// gives other words.
struct KeyWords {
  uint32_t first, second;
};

CLR_INLINE KeyWords key_words(uint64_t key, uint64_t upper_half) {
  const uint64_t words = key + upper_half * kSpread;
  return {static_cast<uint32_t>(words), static_cast<uint32_t>(words >> 32)};
}

// Returns 32 random bits for the element with this lower half. Under one pair of words every number comes once in 2^32
// elements. All operations have 32 bits: 4 multiplications (their lower half), 8 exclusive ors, 6 shifts.
template <class Bits>
CLR_INLINE Bits random_bits(KeyWords words, Bits lower_half) {
  return mixed_32(mixed_32(lower_half ^ words.first) ^ words.second);
}

CLR_INLINE uint32_t random_bits(uint64_t key, uint64_t element) {
  return random_bits(key_words(key, element >> 32), static_cast<uint32_t>(element));
}

}  // namespace clr
