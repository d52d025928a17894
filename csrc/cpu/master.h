// 16-bit parameters with float32 master weights.
#pragma once

#include <cstdint>

#include "core/slot.h"

namespace clr {

// to[i] <- from[i], rounded to nearest even. `dtype`: bfloat16 or float16.
void round_to_half(DType dtype, const float* from, void* to, std::int64_t size);

// Copies each element of the parameter that is not its master weight's rounded copy into the master weight: somebody
// has changed it since.
void obey_parameter(DType dtype, const void* parameter, float* master, std::int64_t size);

}  // namespace clr
