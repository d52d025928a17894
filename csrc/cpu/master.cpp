#include "cpu/master.h"

#include "kernel/half.h"

namespace clr {

namespace {

Bfloat16 rounded(float x, Bfloat16) { return rounded_to_bfloat16(x); }
Float16 rounded(float x, Float16) { return rounded_to_float16(x); }

template <class Half>
void round_all(const float* from, Half* to, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) to[i] = rounded(from[i], Half{});
}

template <class Half>
void obey_all(const Half* parameter, float* master, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) {
    const float weight = widened(parameter[i]);
    if (widened(rounded(master[i], Half{})) != weight) master[i] = weight;
  }
}

}  // namespace

void round_to_half(DType dtype, const float* from, void* to, std::int64_t size) {
  dtype == DType::bfloat16 ? round_all(from, static_cast<Bfloat16*>(to), size)
                           : round_all(from, static_cast<Float16*>(to), size);
}

void obey_parameter(DType dtype, const void* parameter, float* master, std::int64_t size) {
  dtype == DType::bfloat16 ? obey_all(static_cast<const Bfloat16*>(parameter), master, size)
                           : obey_all(static_cast<const Float16*>(parameter), master, size);
}

}  // namespace clr
