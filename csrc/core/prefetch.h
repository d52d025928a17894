// Asks for memory before its turn.
#pragma once

#include <stddef.h>

#include "core/portable.h"

namespace clr {

constexpr size_t kCacheLine = 64;

// These functions are inlined always: gcc takes a function that does nothing but prefetch for one without effect, and
// removes its calls.
CLR_INLINE void prefetch_line(const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address);
#else
  (void)address;
#endif
}

CLR_INLINE void prefetch_bytes(const void* first, size_t bytes) {
  if (first == nullptr) return;
  const char* const start = static_cast<const char*>(first);
  for (size_t i = 0; i < bytes; i += kCacheLine) prefetch_line(start + i);
  prefetch_line(start + bytes - 1);
}

template <class Object>
CLR_INLINE void prefetch_object(const Object& object) {
  prefetch_bytes(&object, sizeof object);
}

}  // namespace clr
