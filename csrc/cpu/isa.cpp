#include "cpu/isa.h"

#include <cstdlib>
#include <stdexcept>

#if defined(CLR_NATIVE_X86) && defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#elif defined(CLR_NATIVE_X86)
#include <cpuid.h>
#endif

namespace clr {

namespace {

#if defined(CLR_NATIVE_X86) && defined(_MSC_VER)
// Feature bits of leaf 1 (ecx) and leaf 7 (ebx), and the register state that the operating system saves.
struct CpuFeatures {
  unsigned leaf1_ecx, leaf7_ebx, saved;
  CpuFeatures() {
    int r[4];
    __cpuid(r, 1);
    leaf1_ecx = static_cast<unsigned>(r[2]);
    __cpuidex(r, 7, 0);
    leaf7_ebx = static_cast<unsigned>(r[1]);
    saved = (leaf1_ecx >> 27) & 1 ? static_cast<unsigned>(_xgetbv(0)) : 0;
  }
};

bool has_avx2() {
  const CpuFeatures f;
  const unsigned fma = 1u << 12, f16c = 1u << 29, avx2 = 1u << 5;
  return (f.saved & 0x6u) == 0x6u && (f.leaf1_ecx & fma) && (f.leaf1_ecx & f16c) && (f.leaf7_ebx & avx2);
}

bool has_avx512() {
  const CpuFeatures f;
  const unsigned needed = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
  return has_avx2() && (f.saved & 0xe6u) == 0xe6u && (f.leaf7_ebx & needed) == needed;
}
#elif defined(CLR_NATIVE_X86)
// clang before 19 does not know "f16c" in __builtin_cpu_supports.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

}  // namespace

const std::vector<Isa>& compiled_isas() {
  static const std::vector<Isa> isas = {
      {"baseline", &baseline_kernels, true},
#if defined(CLR_NATIVE_X86)
      {"avx2", &avx2_kernels, has_avx2()},
      {"avx512", &avx512_kernels, has_avx512()},
#endif
#if defined(CLR_NATIVE_NEON)
      {"neon", &neon_kernels, true},
#endif
  };
  return isas;
}

const Isa& choose_isa(const char* wanted) {
  const std::vector<Isa>& isas = compiled_isas();
  const std::string name = wanted == nullptr ? "" : wanted;
  std::string usable;
  const Isa* chosen = nullptr;
  for (const Isa& isa : isas) {
    if (!isa.detected) continue;
    if (name.empty() || name == isa.name) chosen = &isa;
    usable += (usable.empty() ? "" : ", ") + std::string(isa.name);
  }
  if (chosen == nullptr) {
    throw std::invalid_argument("CLR_NATIVE_ISA=" + name +
                                " is not available in this build on this processor: unset it or choose one of " +
                                usable);
  }
  return *chosen;
}

const Isa& selected_isa() {
  static const Isa& chosen = choose_isa(std::getenv("CLR_NATIVE_ISA"));
  return chosen;
}

}  // namespace clr
