// The only file that uses threads. They are torch's own threads, reached through its stable C interface in the loaded
// libtorch. So torch.set_num_threads holds for both, and there is no second pool. Without that interface everything
// runs serially.
#pragma once

#include <string>

namespace clr {

// Returns how many parts run at once, at most. Returns 1 without torch.
int thread_count();

// Calls body(part, context) for part 0 to parts - 1, each once, and returns when all are done. `body` must not throw.
// Call it without the GIL. Returns false if the pool reported a failure: parts may be missing then.
bool run_parts(int parts, void (*body)(int part, void* context), void* context);

// Returns "torch" or "serial (why)".
std::string thread_backend();

}  // namespace clr
