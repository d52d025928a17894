#include "cpu/parallel.h"

#include <cstdint>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace clr {

namespace {

using ParallelFunction = void (*)(std::int64_t begin, std::int64_t end, void* context);

// Declared in torch/csrc/stable/c/shim.h; 0 means success.
struct TorchThreads {
  std::int32_t (*parallel_for)(std::int64_t, std::int64_t, std::int64_t, ParallelFunction, void*) = nullptr;
  std::int32_t (*get_num_threads)(std::uint32_t*) = nullptr;
  const char* missing = nullptr;
};

// Libraries that Python loaded are not in the global scope, so only the handle of libtorch_cpu itself finds its
// symbols.
#if defined(_WIN32)
void* symbol(const char* name) {
  const HMODULE library = GetModuleHandleA("torch_cpu.dll");
  return library == nullptr ? nullptr : reinterpret_cast<void*>(GetProcAddress(library, name));
}
#else
void* symbol(const char* name) {
#if defined(__APPLE__)
  static void* const library = dlopen("@rpath/libtorch_cpu.dylib", RTLD_LAZY | RTLD_NOLOAD);
#else
  static void* const library = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
#endif
  return library == nullptr ? nullptr : dlsym(library, name);
}
#endif

TorchThreads find_torch_threads() {
  TorchThreads t;
  t.parallel_for = reinterpret_cast<decltype(t.parallel_for)>(symbol("torch_parallel_for"));
  t.get_num_threads = reinterpret_cast<decltype(t.get_num_threads)>(symbol("torch_get_num_threads"));
  if (t.parallel_for == nullptr || t.get_num_threads == nullptr) {
    t.missing = "the loaded libtorch_cpu offers no torch_parallel_for";
  }
  return t;
}

const TorchThreads& torch_threads() {
  static const TorchThreads found = find_torch_threads();
  return found;
}

struct Job {
  void (*body)(int, void*);
  void* context;
};

void run_some(std::int64_t begin, std::int64_t end, void* context) {
  const Job& job = *static_cast<const Job*>(context);
  for (std::int64_t part = begin; part < end; ++part) job.body(static_cast<int>(part), job.context);
}

}  // namespace

int thread_count() {
  std::uint32_t count = 1;
  const TorchThreads& torch = torch_threads();
  if (torch.missing != nullptr || torch.get_num_threads(&count) != 0) return 1;
  return static_cast<int>(count);
}

bool run_parts(int parts, void (*body)(int, void*), void* context) {
  Job job = {body, context};
  const TorchThreads& torch = torch_threads();
  if (parts > 1 && torch.missing == nullptr) return torch.parallel_for(0, parts, 1, run_some, &job) == 0;
  run_some(0, parts, &job);
  return true;
}

std::string thread_backend() {
  const char* missing = torch_threads().missing;
  return missing == nullptr ? "torch" : "serial (" + std::string(missing) + ")";
}

}  // namespace clr
