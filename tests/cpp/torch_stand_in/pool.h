// What the tests can tell and ask the stand-in for torch's threads.
#pragma once

#include <cstdint>

extern "C" {
void stand_in_set_threads(std::uint32_t count);
void stand_in_set_failing(bool failing);  // every call reports a failure after doing its work
int stand_in_calls();                     // of torch_parallel_for so far
}
