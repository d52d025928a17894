"""Torch's allocator of memory on devices, which torch has only where it is built for CUDA."""

from __future__ import annotations

import ctypes

import torch

from standin.driver import Driver
from standin.gpu import Gpu
from standin.objects import FILL, Stream, memory_at


class Allocator:
    """Takes the place of torch.cuda.caching_allocator_alloc and caching_allocator_delete for good.

    What is given back belongs to others at once. A captured stream gets memory of its graph's pool, which belongs to
    others between replays.
    """

    def __init__(self, gpu: Gpu, driver: Driver) -> None:
        self.gpu, self.driver = gpu, driver
        self.streams: dict[int, Stream] = {}  # of what was taken and not given back, by address
        vars(torch.cuda).update(caching_allocator_alloc=self.take, caching_allocator_delete=self.give_back)

    def take(self, size: int, device: int, stream: int) -> int:
        gpu, address = self.gpu, ctypes.c_uint64()
        gpu.stack.append(gpu.context(device))
        failed = self.driver.library.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))
        gpu.stack.pop()
        if failed:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
        of = self.streams[address.value] = gpu.find(Stream, stream)
        if of.graph:
            of.graph.nodes.insert(0, ("others in its pool", lambda: memory_at(address.value, size).fill(FILL)))
        return address.value

    def give_back(self, address: int) -> None:
        del self.streams[address]
        self.gpu.free(self.gpu.blocks[address])
