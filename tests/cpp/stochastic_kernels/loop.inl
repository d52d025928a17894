// The loops, once for all instruction sets. Included after F32 and U32.
#include "kernel/stochastic.inl"
#include "support/stochastic_kernels.h"

namespace clr {
namespace {

using Block = Pack<F32, kLanesPerBlock>;
using RandomBlock = RandomOf<Block>::type;

void fill_random(uint64_t key, uint64_t first, int64_t count, uint32_t* to) {
  int64_t i = 0;
  for (; i + Block::width <= count; i += Block::width) {
    RandomBlock random;
    random_from(key, first + static_cast<uint64_t>(i), random);
    memcpy(to + i, &random, sizeof random);
  }
  for (; i < count; i += F32::width) {
    U32 random;
    random_from(key, first + static_cast<uint64_t>(i), random);
    const int64_t rest = count - i < F32::width ? count - i : F32::width;
    memcpy(to + i, &random, static_cast<size_t>(rest) * sizeof(uint32_t));
  }
}

template <class Element>
void round_all(const float* from, const uint32_t* random, int64_t count, uint16_t* to_bits) {
  Element* const to = reinterpret_cast<Element*>(to_bits);
  int64_t i = 0;
  for (; i + Block::width <= count; i += Block::width) {
    Block x;
    RandomBlock r;
    load(from + i, x);
    memcpy(&r, random + i, sizeof r);
    store_stochastic(x, r, to + i);
  }
  for (; i + F32::width <= count; i += F32::width) {
    F32 x;
    U32 r;
    load(from + i, x);
    memcpy(&r, random + i, sizeof r);
    store_stochastic(x, r, to + i);
  }
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    F32 x;
    U32 r = U32::all(0);
    load_first(from + i, rest, x);
    memcpy(&r, random + i, static_cast<size_t>(rest) * sizeof(uint32_t));
    store_stochastic_first(x, r, rest, to + i);
  }
}

}  // namespace
}  // namespace clr

#define CLR_STOCHASTIC_KERNELS(isa) {isa, clr::fill_random, clr::round_all<clr::Bfloat16>, clr::round_all<clr::Float16>}
