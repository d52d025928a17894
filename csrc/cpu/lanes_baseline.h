// Lanes of one number for any processor. They have no fma: `fused` rounds twice, as torch's baseline build does.
#pragma once

#include "kernel/lanes_scalar.h"

namespace clr {
namespace {

template <class Number>
CLR_INLINE Scalar<Number> fused(Scalar<Number> a, Scalar<Number> b, Scalar<Number> c) {
  return {a.x * b.x + c.x};
}

// Uses an instruction if this processor has it, else exact software. That is slow, so it is used only where bits depend
// on it.
CLR_INLINE F64 fused_once(F64 a, F64 b, F64 c) { return {clr::fused(a.x, b.x, c.x)}; }

}  // namespace
}  // namespace clr
