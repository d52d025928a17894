// The orders to a kernel: a tensor to update, and the numbers of its group and of its step.
#pragma once

#include "core/sgd.h"

namespace clr {

enum class DType : uint8_t { float32, float64, bfloat16, float16 };

CLR_INLINE constexpr int64_t size_of(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}

// How a 16-bit parameter is kept from step to step. All arithmetic is in float32.
enum class Storage : uint8_t {
  nearest,     // rounded to nearest even
  stochastic,  // rounded up or down at random, right on average
  split,       // what rounding takes away is kept in `companion`, of the parameter's dtype (Kahan's compensation)
  master       // `companion` holds the float32 weight, the parameter a copy of it, rounded to nearest
};

// The numbers of one parameter group for one update.
struct GroupValues {
  double lr, momentum, dampening, weight_decay;
  bool nesterov, maximize;
  // A plain update leaves these members as they are.
  bool averages = false;                            // True if the average moves
  double average_weight = 0.0;                      // of the new weight in the average
  double trust_coefficient = 0.0, trust_eps = 0.0;  // LARS where the coefficient is not zero
};

// The operations on all gradients of one update, before it and in this order.
struct GradientValues {
  double scale = 1.0;             // times: one over the scale of the loss
  double clip_coefficient = 1.0;  // times
  double limit = 0.0;             // within plus and minus this; 0 for no limit
};

// Where the elements of a shard stand in the whole tensor, whose elements are counted in the order of rows: `run` of
// them follow each other, and the next run begins `stride` places after the one before.
struct Places {
  int64_t first = 0;
  int64_t run = 0;  // 0: all elements are one run
  int64_t stride = 0;
};

// One tensor to update: dense arrays of `size` elements in the same order.
struct Slot {
  void* parameter;
  const void* gradient;  // null: nothing but the average moves
  void* buffer;          // null: momentum plays no part
  int64_t size;
  uint32_t group;
  DType dtype;
  bool first;  // True if the buffer holds nothing yet
  // A plain update leaves the members from here on as they are.
  DType buffer_dtype = dtype, gradient_dtype = dtype;
  Storage storage = Storage::nearest;
  bool first_average = false;  // the average holds nothing yet
  bool trusted = false;        // True if LARS needs its norms
  int16_t device = -1;         // the number of the CUDA device that its memory is on; -1: this processor's
  void* average = nullptr;     // null for none; float32 beside a master weight, else of the parameter's dtype
  void* companion = nullptr;   // see Storage
  void* unscaled = nullptr;    // where the gradient, times the scale, is written; null for nowhere
  double trust_ratio = 1.0;    // LARS: the factor of gradient and weight decay
  uint64_t random_key = 0;     // Storage::stochastic: of the whole tensor
  Places places = {};          // the same
};

// Returns the dtype of the companion, and of the average: the average is of the weight that the updates go on from.
CLR_INLINE DType companion_dtype(DType parameter, Storage storage) {
  return storage == Storage::master ? DType::float32 : parameter;
}

// The numbers of some tensor.
struct Numbers {
  const void* array;
  DType dtype;
};

// Returns the weight that the updates go on from.
CLR_INLINE Numbers weight_of(const Slot& slot) {
  return {slot.storage == Storage::master ? slot.companion : slot.parameter, companion_dtype(slot.dtype, slot.storage)};
}

// Coefficients are formed in double and cast once.
template <class Real>
CLR_INLINE SgdCoefficients<Real> coefficients(const GroupValues& group, const Slot& slot) {
  return {static_cast<Real>(-group.lr),
          static_cast<Real>(group.momentum),
          static_cast<Real>(1.0 - group.dampening),
          static_cast<Real>(group.weight_decay),
          static_cast<Real>(slot.trust_ratio),
          group.maximize,
          group.nesterov,
          slot.buffer != nullptr,
          slot.first};
}

template <class Real>
CLR_INLINE GradientCoefficients<Real> coefficients(const GradientValues& gradients) {
  // A GPU, which may ask again at every element, has few units for doubles: it asks for bits.
  return {static_cast<Real>(gradients.scale), static_cast<Real>(gradients.clip_coefficient),
          static_cast<Real>(gradients.limit), double_to_bits(gradients.limit) != 0};
}

// True if an update can read gradients of another dtype than its parameter: converting them to the dtype of the
// arithmetic, float32 or the parameter's float64, loses nothing.
CLR_INLINE bool reads_gradient(DType parameter, DType gradient) {
  return gradient == parameter || gradient != DType::float64;
}

// True if this is an update and nothing else.
CLR_INLINE bool is_bare_update(const GradientValues& gradients, const Slot& slot) {
  return gradients.scale == 1 && gradients.clip_coefficient == 1 && gradients.limit == 0 && slot.gradient != nullptr &&
         slot.average == nullptr && slot.unscaled == nullptr && slot.storage == Storage::nearest &&
         slot.buffer_dtype == slot.dtype && slot.gradient_dtype == slot.dtype;
}

}  // namespace clr
