"""What a driver gives handles of."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

import ptx
from ptx.types import Array
from standin.results import Result

Work = Callable[[], None]
GLOBAL, THREAD_LOCAL, RELAXED = range(3)  # modes of a capture, and of a thread towards captures

FILL = 0xA5  # of memory that nobody wrote, and around it
_GUARD = 64


def memory_at(address: int, size: int) -> Array:
    """Bytes of this process, without a copy."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


class Block:
    """Memory of a device, or pinned memory of the host. Freed, it stays, so that late writes are seen."""

    def __init__(self, what: str, context: Context, size: int) -> None:
        self.what, self.context, self.size = what, context, size
        alignment = 4096 if what == "pinned" else 256
        self._whole = np.full(size + 2 * _GUARD + alignment, FILL, np.uint8)
        self.address = -(-(self._whole.ctypes.data + _GUARD) // alignment) * alignment
        self.freed = False

    def free(self) -> None:
        self.freed = True
        memory_at(self.address, self.size)[:] = FILL

    def intact(self) -> bool:
        """Nothing was written around it, nor into it since it was freed."""
        begin = self.address - self._whole.ctypes.data
        end = begin if self.freed else begin + self.size
        return bool((self._whole[:begin] == FILL).all() and (self._whole[end:] == FILL).all())

    def __str__(self) -> str:
        return f"{self.what} memory of {self.size} bytes at {self.address:#x}, device {self.context.device}"


@dataclass(eq=False)
class Context:
    """The primary context of a device."""

    handle: int
    device: int
    retained: int = 0
    broken: Result = Result.SUCCESS  # the error of a kernel or a copy, which all later calls answer


@dataclass(eq=False)
class Module:
    handle: int
    context: Context
    code: ptx.Module


@dataclass(eq=False)
class Function:
    handle: int
    module: Module
    kernel: ptx.Kernel


@dataclass(eq=False)
class Graph:
    """What a capture recorded: the names of the calls, with what each does."""

    mode: int
    thread: int
    nodes: list[tuple[str, Work]] = field(default_factory=list)
    valid: bool = True

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.nodes]


@dataclass(eq=False)
class Stream:
    handle: int
    context: Context
    blocking: bool
    by_test: bool  # as torch's streams: nobody must destroy it
    queue: deque[Work] = field(default_factory=deque)
    issued: int = 0  # pieces of work since it was made
    graph: Graph | None = None
    is_running: bool = False

    @property
    def done(self) -> int:
        return self.issued - len(self.queue)

    def put(self, work: Work) -> None:
        self.queue.append(work)
        self.issued += 1

    def run(self, until: int | None = None) -> None:
        if self.is_running:  # Python collects garbage in the middle of a piece of work, and that waits for us
            return
        self.is_running = True
        try:
            while self.queue and (until is None or self.done < until):
                self.queue.popleft()()
        finally:
            self.is_running = False


@dataclass(eq=False)
class Event:
    handle: int
    context: Context
    stream: Stream | None = None
    behind: int = 0  # how many pieces of the stream's work
    graph: Graph | None = None  # that it was recorded into

    @property
    def captured(self) -> bool:
        return self.graph is not None
