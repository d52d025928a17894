// 16-bit parameters beside float32 weights.
#pragma once

#include <cstdint>

#include "core/slot.h"

namespace clr {

// to[i] <- from[i], rounded to nearest even. `dtype`: bfloat16 or float16.
void round_to_half(DType dtype, const float* from, void* to, std::int64_t size);

// A parameter that is not its master weight's copy has been changed since: it becomes the master weight.
void obey_parameter(DType dtype, const void* parameter, float* master, std::int64_t size);

}  // namespace clr
