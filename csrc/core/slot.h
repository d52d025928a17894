// What a kernel is told: a tensor to update and the numbers of its group.
#pragma once

#include "core/sgd.h"

namespace clr {

enum class DType : uint8_t { float32, float64, bfloat16, float16 };

CLR_INLINE constexpr int64_t size_of(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}

// The numbers of one parameter group for one update.
struct GroupValues {
  double lr, momentum, dampening, weight_decay;
  bool nesterov, maximize;
};

// One tensor to update: dense arrays of `size` elements in the same order.
struct Slot {
  void* parameter;
  const void* gradient;
  void* buffer;  // null: momentum plays no part
  int64_t size;
  uint32_t group;
  DType dtype;
  bool first;  // the buffer holds nothing yet
};

// Coefficients are formed in double and cast once.
template <class Real>
CLR_INLINE SgdCoefficients<Real> coefficients(const GroupValues& group, const Slot& slot) {
  return {static_cast<Real>(-group.lr),
          static_cast<Real>(group.momentum),
          static_cast<Real>(1.0 - group.dampening),
          static_cast<Real>(group.weight_decay),
          group.maximize,
          group.nesterov,
          slot.buffer != nullptr,
          slot.first};
}

}  // namespace clr
