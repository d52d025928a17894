"""The devices behind the stand-in, and what a test may ask and set."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import ptx
from ptx import Memory, MemoryFaultError, Statistics
from standin.answers import ANSWERS, Call
from standin.images import module_of
from standin.objects import (
    GLOBAL,
    RELAXED,
    THREAD_LOCAL,
    Block,
    Context,
    Event,
    Function,
    Graph,
    Module,
    Stream,
    Work,
    memory_at,
)
from standin.results import Attribute, RefusedError, Result, refuse

_MODES = {"global": GLOBAL, "thread_local": THREAD_LOCAL, "relaxed": RELAXED}
SMALL_AMPERE: dict[int, int] = {
    Attribute.MAX_THREADS_PER_BLOCK: 1024,
    Attribute.MULTIPROCESSOR_COUNT: 2,
    Attribute.MAX_THREADS_PER_MULTIPROCESSOR: 1536,
    Attribute.COMPUTE_CAPABILITY_MAJOR: 8,
    Attribute.COMPUTE_CAPABILITY_MINOR: 6,
}
Owned = TypeVar("Owned", Context, Module, Function, Stream, Event)


class Gpu:
    """One driver with its devices. What it says of itself:

    log: every call since it was last cleared.          statistics: of every kernel that ran.
    held(): what was made and not given back.           check(): raises what went wrong behind the caller's back.
    """

    def __init__(self) -> None:
        self.version, self.initialised = 13000, False
        self.module_of: Callable[[int], ptx.Module] = module_of
        self.tensors: Callable[[int], dict[int, int]] = lambda device: {}  # addresses and bytes, of kernels of a device
        self.contexts: dict[int, Context] = {}  # by device
        self.handles: dict[int, Any] = {}
        self.blocks: dict[int, Block] = {}  # by address
        self.stacks: dict[int, list[Context]] = {}  # by thread, as are modes
        self.modes: dict[int, int] = {}
        self.texts: dict[str, ctypes.Array[ctypes.c_char]] = {}
        self._memories: dict[int, tuple[Memory, dict[int, int]]] = {}
        self._streams: list[Stream] = []
        self._null_streams: dict[Context, Stream] = {}
        self._freed: list[Block] = []
        self._next_handle = 0x10
        self.begin()

    def begin(self) -> None:
        """Settings of a test back to what they were. What the process holds stays: contexts, modules, memory."""
        self.lazy, self.runs_kernels, self.seed, self.devices = False, True, None, 1
        self.attributes = dict(SMALL_AMPERE)
        self.log: list[Call] = []
        self.statistics: list[Statistics] = []
        self.faults: list[BaseException] = []
        self.failures: list[tuple[str, int, Result]] = []
        self._graphs: list[Graph] = []
        for stream in self._streams:
            stream.queue.clear()
        for context in self.contexts.values():
            context.broken = Result.SUCCESS

    # For tests

    devices: int  # how many there are
    lazy: bool  # work is done when it is waited for, and not before
    runs_kernels: bool  # if not, launches are logged and checked, and nothing runs: for what would take too long
    seed: int | None  # of the interpreter: warps in random order

    def calls(self, *names: str) -> list[Call]:
        return [call for call in self.log if call.name in names]

    def fail(self, name: str, result: Result, call: int = 1) -> None:
        """The `call`-th call of a function from now on answers this and does nothing."""
        if name not in ANSWERS:
            raise ValueError(f"name={name!r} is no function of the stand-in")
        self.failures.append((name, call, result))

    def new_stream(self, device: int = 0, *, blocking: bool = False) -> int:
        """A stream as torch has them, in no log."""
        return self.make_stream(self.context(device), blocking, by_test=True).handle

    @contextmanager
    def capture(self, stream: int, mode: str = "global") -> Iterator[Graph]:
        """As torch.cuda.graph on a stream of new_stream(). Raises RuntimeError where a call has spoilt the capture."""
        into = self.find(Stream, stream)
        into.graph = graph = Graph(_MODES[mode], self.thread())
        self._graphs.append(graph)
        try:
            yield graph
        finally:
            for each in self._streams:
                each.graph = None if each.graph is graph else each.graph
            self._graphs.remove(graph)
        if not graph.valid:
            raise RuntimeError("the capture is invalid: a call during it was forbidden")

    def fork(self, stream: int, into: int) -> None:
        """As if a stream waited for an event in a captured one."""
        self.find(Stream, into).graph = self.find(Stream, stream).graph

    def is_captured(self, graph: Graph) -> bool:
        return graph in self._graphs

    def replay(self, graph: Graph, stream: int) -> None:
        into = self.find(Stream, stream)
        for _, work in graph.nodes:
            into.put(self._guarded(into.context, work))
        if not self.lazy:
            into.run()

    def run(self, stream: int) -> None:
        """A stream of device 0 does its work; 0: the null stream."""
        (self.find(Stream, stream) if stream else self.null_stream(self.context(0))).run()

    def finish(self) -> None:
        """All devices do all their work, the newest streams first."""
        for stream in reversed(self._streams):
            stream.run()

    def check(self) -> None:
        if self.faults:
            raise self.faults[0]
        spoilt = [str(block) for block in (*self.blocks.values(), *self._freed) if not block.intact()]
        if spoilt:
            raise AssertionError(f"written outside of, or after it was freed: {'; '.join(spoilt)}")
        if self.failures:
            raise AssertionError(f"calls that were to fail and did not come: {self.failures}")
        if any(mode != GLOBAL for mode in self.modes.values()):
            raise AssertionError("a thread's capture mode was not put back")

    def held(self) -> frozenset[str]:
        """Compare two of these to see leaks."""
        held = [str(block) for block in list(self.blocks.values())]
        held += [
            f"{type(thing).__name__.lower()} {thing.handle:#x}"
            for thing in list(self.handles.values())
            if isinstance(thing, (Module, Event)) or (isinstance(thing, Stream) and not thing.by_test)
        ]
        for device, context in self.contexts.items():
            held += [f"context of device {device}, retain {i}" for i in range(context.retained)]
        pushed = [context for stack in self.stacks.values() for context in stack]
        return frozenset(held + [f"current context {i}, device {c.device}" for i, c in enumerate(pushed)])

    # For the functions of the driver

    @staticmethod
    def thread() -> int:
        return threading.get_native_id()

    def handle(self, make: Callable[[int], Owned]) -> Owned:
        self._next_handle += 0x10
        thing = self.handles[self._next_handle] = make(self._next_handle)
        return thing

    def find(self, kind: type[Owned], handle: int) -> Owned:
        thing = self.handles.get(handle)
        if not isinstance(thing, kind):
            raise RefusedError(Result.INVALID_HANDLE)
        return thing

    def context(self, device: int) -> Context:
        refuse(not 0 <= device < self.devices, Result.INVALID_DEVICE)
        if device not in self.contexts:
            self.contexts[device] = self.handle(lambda handle: Context(handle, device))
        return self.contexts[device]

    @property
    def stack(self) -> list[Context]:
        return self.stacks.setdefault(self.thread(), [])

    @property
    def current(self) -> Context:
        refuse(not self.stack, Result.INVALID_CONTEXT)
        return self.stack[-1]

    def make_stream(self, context: Context, blocking: bool, by_test: bool) -> Stream:
        made = self.handle(lambda handle: Stream(handle, context, blocking, by_test))
        self._streams.append(made)
        return made

    def null_stream(self, context: Context) -> Stream:
        if context not in self._null_streams:
            self._null_streams[context] = self.make_stream(context, blocking=False, by_test=True)
        return self._null_streams[context]

    def free(self, block: Block) -> None:
        block.free()
        self._freed.append(self.blocks.pop(block.address))

    def enqueue(self, name: str, stream: Stream, work: Work) -> None:
        """Into the stream, or into the graph that it records."""
        if stream.graph:
            refuse(not stream.graph.valid, Result.STREAM_CAPTURE_INVALIDATED)
            stream.graph.nodes.append((name, work))
            return
        stream.put(self._guarded(stream.context, work))
        if not self.lazy:
            self.wait(stream)

    def wait(self, stream: Stream, until: int | None = None) -> None:
        stream.run(until)
        refuse(bool(stream.context.broken), stream.context.broken)

    def wait_for_device(self, context: Context) -> None:
        for stream in self._streams:
            if stream.context is context:
                self.wait(stream)

    def memory(self, device: int) -> Memory:
        """All that a kernel of a device may touch now: its memory, pinned memory, and tensors that lie there."""
        memory, seen = self._memories.setdefault(device, (Memory(), {}))
        now = dict(self.tensors(device))
        for block in list(self.blocks.values()):
            if block.what == "pinned" or block.context.device == device:
                now[block.address] = block.size
        for address, size in list(seen.items()):
            if now.get(address) != size:
                memory.release(address)
                del seen[address]
        for address, size in now.items():
            if address not in seen:
                memory.add(memory_at(address, size), name=str(self.blocks.get(address, "a tensor")))
                seen[address] = size
        return memory

    def captures_a_blocking_stream(self, context: Context) -> bool:
        return any(stream.graph for stream in self._streams if stream.context is context and stream.blocking)

    def spoil_captures(self) -> bool:
        """Is a call that may wait forbidden now? Then no capture survives it."""
        thread = self.thread()
        mode = self.modes.get(thread, GLOBAL)
        if mode == RELAXED:
            return False
        hit = [
            graph
            for graph in self._graphs
            if (graph.thread == thread and graph.mode != RELAXED) or mode == graph.mode == GLOBAL
        ]
        for graph in hit:
            graph.valid = False
        return bool(hit)

    def _guarded(self, context: Context, work: Work) -> Work:
        def run() -> None:
            if context.broken:
                return
            try:
                work()
            except Exception as error:
                self.faults.append(error)
                wrong_place = isinstance(error, MemoryFaultError)
                context.broken = Result.ILLEGAL_ADDRESS if wrong_place else Result.LAUNCH_FAILED

        return run
