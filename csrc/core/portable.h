// The compiler, of a host or a device, as core/ needs it.
//
// Everything in core/ has internal linkage: the same header is compiled once for every instruction set, and an
// inline function with external linkage compiled for AVX-512 could be the copy that the linker keeps for all.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define CLR_INLINE_MEMBER __host__ __device__ __forceinline__
#elif defined(_MSC_VER) && !defined(__clang__)
#define CLR_INLINE_MEMBER __forceinline
#else
#define CLR_INLINE_MEMBER inline __attribute__((always_inline))
#endif
#define CLR_INLINE static CLR_INLINE_MEMBER
// A function that is not inlined everywhere, in an unnamed namespace.
#if defined(__CUDACC__)
#define CLR_FUNCTION __host__ __device__ __forceinline__
#else
#define CLR_FUNCTION
#endif

#if defined(_MSC_VER) && !defined(__clang__)
extern "C" double fma(double, double, double);
extern "C" double sqrt(double);
#endif

namespace clr {

// Returns a * b + c with one rounding on every target: by an instruction where there is one, else by exact software.
CLR_INLINE double fused(double a, double b, double c) {
#if defined(_MSC_VER) && !defined(__clang__)
  return ::fma(a, b, c);
#else
  return __builtin_fma(a, b, c);
#endif
}

// Returns the correctly rounded square root.
CLR_INLINE double square_root(double x) {
#if defined(_MSC_VER) && !defined(__clang__)
  return ::sqrt(x);
#else
  return __builtin_sqrt(x);
#endif
}

CLR_INLINE double bits_to_double(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

CLR_INLINE uint64_t double_to_bits(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Tells -0 from 0, and finds a NaN equal to itself.
CLR_INLINE bool same_bits(double a, double b) { return double_to_bits(a) == double_to_bits(b); }

}  // namespace clr
