// The one place that knows threads. They are torch's own: its stable C interface, looked up in the libtorch that is
// loaded, so that torch.set_num_threads counts for both and no second pool exists. Serial where there is none.
#pragma once

#include <string>

namespace clr {

// How many parts run at once, at most. 1 without torch.
int thread_count();

// Calls body(part, context) for part 0 to parts - 1, each once, and returns when all are done. `body` must not throw.
// Call it without the GIL. Returns false if the pool reported a failure: parts may be missing then.
bool run_parts(int parts, void (*body)(int part, void* context), void* context);

// "torch" or "serial (why)".
std::string thread_backend();

}  // namespace clr
