// What device code asks of the program that it is part of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace clr {

// Runs `blocks`, which waits for a device.
using Wait = void (*)(const std::function<void()>& blocks);

struct Host {
  // Returns the stream that is current on a device.
  void* (*current_stream)(int device);
  // Lets other threads of the program go on meanwhile.
  Wait wait;
  // Returns the address of new memory on a device, whose users before have left nothing undone but in `stream`. Throws
  // if there is none left.
  std::uint64_t (*take_memory)(int device, std::size_t bytes, void* stream);
  // Gives memory back, which others may use at once. Does not throw.
  void (*give_back_memory)(std::uint64_t address);
};

}  // namespace clr
