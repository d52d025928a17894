"""The driver: memory of devices, pinned memory, copies."""

from __future__ import annotations

import numpy as np

from standin.answers import answers
from standin.functions_context import put_handle
from standin.functions_streams import stream_of
from standin.gpu import Gpu
from standin.objects import Block, memory_at
from standin.results import RefusedError, Result, refuse


def _allocate(gpu: Gpu, what: str, at: int, size: int) -> None:
    refuse(size == 0, Result.INVALID_VALUE)
    block = Block(what, gpu.current, size)
    gpu.blocks[block.address] = block
    put_handle(at, block.address)


def _owned(gpu: Gpu, what: str, address: int) -> Block:
    block = gpu.blocks.get(address)
    if block is None or block.what != what:
        raise RefusedError(Result.INVALID_VALUE)
    return block


@answers("cuMemAlloc_v2", in_context=True, may_wait=True)
def mem_alloc(gpu: Gpu, address: int, size: int) -> None:
    _allocate(gpu, "device", address, size)


@answers("cuMemFree_v2", in_context=True, may_wait=True)
def mem_free(gpu: Gpu, address: int) -> None:
    """Waits for all work of the device, as drivers do."""
    if address:
        block = _owned(gpu, "device", address)
        gpu.wait_for_device(block.context)
        gpu.free(block)


@answers("cuMemHostAlloc", in_context=True, may_wait=True)
def mem_host_alloc(gpu: Gpu, address: int, size: int, flags: int) -> None:
    refuse(flags & ~7 != 0, Result.INVALID_VALUE)
    _allocate(gpu, "pinned", address, size)


@answers("cuMemFreeHost", in_context=True, may_wait=True)
def mem_free_host(gpu: Gpu, address: int) -> None:
    """Waits for nothing: work that still needs it is a fault."""
    gpu.free(_owned(gpu, "pinned", address))


def pinned(gpu: Gpu, address: int, size: int) -> Block | None:
    """The pinned memory that this lies in; None of pageable memory."""
    for block in list(gpu.blocks.values()):  # garbage may be collected meanwhile, and give back some
        if block.what == "pinned" and block.address < address + size and address < block.address + block.size:
            refuse(address < block.address or address + size > block.address + block.size, Result.INVALID_VALUE)
            return block
    return None


def _still(block: Block | None) -> None:
    if block and block.freed:
        raise ValueError(f"a copy that was not done yet needs {block}, which was freed")


@answers("cuMemcpyHtoDAsync_v2", in_context=True)
def memcpy_htod_async(gpu: Gpu, to: int, source: int, size: int, stream: int) -> None:
    """From pinned memory when its turn comes; pageable memory is read before this returns."""
    into, block = stream_of(gpu, stream), pinned(gpu, source, size)
    if size == 0:
        return
    data = memory_at(source, size)
    if block is None:
        refuse(into.graph is not None, Result.STREAM_CAPTURE_UNSUPPORTED)
        data = data.copy()

    def copy() -> None:
        _still(block)
        gpu.memory(into.context.device).write(to, data)

    gpu.enqueue("cuMemcpyHtoDAsync_v2", into, copy)


@answers("cuMemcpyDtoHAsync_v2", in_context=True)
def memcpy_dtoh_async(gpu: Gpu, to: int, source: int, size: int, stream: int) -> None:
    """To pinned memory when its turn comes; for pageable memory this waits."""
    into, block = stream_of(gpu, stream), pinned(gpu, to, size)
    if size == 0:
        return
    refuse(block is None and into.graph is not None, Result.STREAM_CAPTURE_UNSUPPORTED)

    def copy() -> None:
        _still(block)
        memory_at(to, size)[:] = gpu.memory(into.context.device).read(source, np.uint8, size)

    gpu.enqueue("cuMemcpyDtoHAsync_v2", into, copy)
    if block is None:
        gpu.wait(into)


@answers("cuMemsetD8Async", in_context=True)
def memset_d8_async(gpu: Gpu, to: int, value: int, size: int, stream: int) -> None:
    into = stream_of(gpu, stream)
    if size == 0:
        return

    def fill() -> None:
        gpu.memory(into.context.device).write(to, np.full(size, value, np.uint8))

    gpu.enqueue("cuMemsetD8Async", into, fill)
