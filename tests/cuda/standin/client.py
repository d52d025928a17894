"""Someone who calls the driver by the names of its functions, for the tests of the stand-in."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from standin.gpu import Gpu
from standin.objects import memory_at
from standin.results import Result
from toolkit import SAMPLES, ptx_of

SAMPLE = SAMPLES / "standin.cu"


class Sum(ctypes.Structure):
    _fields_ = (("size", ctypes.c_int64), ("factor", ctypes.c_float))


class Client:
    """Calls functions by their names. `do` fails where the driver does, `ask` says what it answered."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.library = gpu, ctypes.CDLL("libcuda.so.1")
        self.do("cuInit", 0)

    def ask(self, name: str, *arguments: Any) -> Result:
        passed = [ctypes.c_uint64(a) if isinstance(a, int) else a for a in arguments]
        return Result(getattr(self.library, name)(*passed))

    def do(self, name: str, *arguments: Any) -> None:
        assert self.ask(name, *arguments) is Result.SUCCESS, f"{name}{arguments}"

    def get(self, name: str, *arguments: Any) -> int:
        """What a function writes behind its first argument."""
        got = ctypes.c_uint64(0)
        self.do(name, ctypes.byref(got), *arguments)
        return got.value

    def enter(self, device: int = 0) -> int:
        context = self.get("cuDevicePrimaryCtxRetain", device)
        self.do("cuCtxPushCurrent_v2", context)
        return context

    def leave(self, device: int = 0) -> None:
        self.do("cuCtxPopCurrent_v2", None)
        self.do("cuDevicePrimaryCtxRelease_v2", device)

    def load(self, image: bytes | None = None) -> int:
        return self.get("cuModuleLoadData", ctypes.c_char_p(image or ptx_of(SAMPLE).encode()))

    def function(self, module: int, name: str = "add") -> int:
        return self.get("cuModuleGetFunction", module, ctypes.c_char_p(name.encode()))

    def launch(self, function: int, stream: int, *values: Any, grid: int = 1, block: int = 64) -> Result:
        places = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        return self.ask("cuLaunchKernel", function, grid, 1, 1, block, 1, 1, 0, stream, places, None)

    def add(self, function: int, stream: int, to: int, source: int, size: int, factor: float) -> Result:
        return self.launch(function, stream, ctypes.c_uint64(to), ctypes.c_uint64(source), Sum(size, factor))


def pinned_floats(client: Client, values: list[float]) -> tuple[int, Any]:
    address = client.get("cuMemHostAlloc", 4 * len(values), 0)
    floats = memory_at(address, 4 * len(values)).view(np.float32)
    floats[:] = values
    return address, floats


class Adding:
    """Two numbers on the device and three of pinned memory, and a stream."""

    def __init__(self, client: Client, lazy: bool = False) -> None:
        self.client = client
        self.module = client.load()
        self.function = client.function(self.module)
        self.stream = client.get("cuStreamCreate", 1)
        self.to, self.source = (client.get("cuMemAlloc_v2", 8) for _ in range(2))
        self.at_host, self.host = pinned_floats(client, [1.0, 2.0])
        client.do("cuMemsetD8Async", self.to, 0, 8, self.stream)
        client.do("cuStreamSynchronize", self.stream)
        client.gpu.lazy = lazy

    def upload(self) -> None:
        self.client.do("cuMemcpyHtoDAsync_v2", self.source, self.at_host, 8, self.stream)

    def add(self, factor: float = 1.0) -> None:
        assert self.client.add(self.function, self.stream, self.to, self.source, 2, factor) is Result.SUCCESS

    def result(self) -> list[float]:
        values = (ctypes.c_float * 2)()
        self.client.do("cuMemcpyDtoHAsync_v2", values, self.to, 8, self.stream)
        return list(values)

    def end(self) -> None:
        self.client.do("cuStreamDestroy_v2", self.stream)
        for address in (self.to, self.source):
            self.client.do("cuMemFree_v2", address)
        self.client.do("cuMemFreeHost", self.at_host)
        self.client.do("cuModuleUnload", self.module)
