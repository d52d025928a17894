// How a thread waits for a device.
#pragma once

#include <functional>

namespace clr {

// Runs `blocks`, which waits for a device, so that other threads of the owner can go on meanwhile.
using Wait = void (*)(const std::function<void()>& blocks);

}  // namespace clr
