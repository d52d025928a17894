// Lanes of one number for any processor. No fma: two roundings, as torch's baseline build.
#pragma once

#include "kernel/lanes_scalar.h"

namespace clr {
namespace {

template <class Number>
CLR_INLINE Scalar<Number> fused(Scalar<Number> a, Scalar<Number> b, Scalar<Number> c) {
  return {a.x * b.x + c.x};
}

// An instruction that this processor may have, or exact software: slow, so only where bits depend on it.
CLR_INLINE F64 fused_once(F64 a, F64 b, F64 c) { return {clr::fused(a.x, b.x, c.x)}; }

}  // namespace
}  // namespace clr
