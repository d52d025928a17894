#include "python/torch/torch_host.h"

#include <pybind11/pybind11.h>

#include "python/torch/tensor_view.h"

namespace clr {

namespace {

void* current_stream(int device) { return TorchReader::get().current_stream(device); }

void wait_without_gil(const std::function<void()>& blocks) {
  const py::gil_scoped_release release;
  blocks();
}

py::object torch_cuda() { return py::module_::import("torch").attr("cuda"); }

std::uint64_t take_memory(int device, std::size_t bytes, void* stream) {
  const auto number = reinterpret_cast<std::uintptr_t>(stream);
  return torch_cuda().attr("caching_allocator_alloc")(bytes, device, number).cast<std::uint64_t>();
}

// At the end of a process torch may be gone before us, with its memory.
void give_back_memory(std::uint64_t address) {
  const py::error_scope unrelated;
  try {
    torch_cuda().attr("caching_allocator_delete")(address);
  } catch (const py::error_already_set&) {  // NOLINT(bugprone-empty-catch): nobody could do anything about it
  }
}

}  // namespace

const Host& torch_host() {
  static const Host host{current_stream, wait_without_gil, take_memory, give_back_memory};
  return host;
}

}  // namespace clr
