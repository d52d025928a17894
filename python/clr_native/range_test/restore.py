"""Remembers everything that a range test changes before the test, and puts it back afterwards, bit for bit."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from clr_native.range_test.memory import Memory


class RandomState:
    """The state of Python's, numpy's and torch's generators, on every device in use."""

    def __init__(self) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # noqa: NPY002  # the global generator is what users' transforms draw from
        self._torch = torch.get_rng_state()
        cuda_in_use = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # untyped in torch
        self._cuda = torch.cuda.get_rng_state_all() if cuda_in_use else None
        self._mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None

    def put_back(self) -> None:
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002  # as above
        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        if self._mps is not None:
            torch.mps.set_rng_state(self._mps)


@contextmanager
def undisturbed(state: Sequence[object], functions: Sequence[object], loaders: Iterable[object]) -> Iterator[Memory]:
    """Puts everything back when the block is left, in whatever way.

    Covers everything that can be reached from `state` (modules, optimizers, scalers), from `functions` (losses, steps)
    and from `loaders` (except large amounts of samples), and the random states. Gives the memory, for a test that is
    repeated. A Ctrl-C while things are put back is raised after that.
    """
    for each in (*state, *functions):
        _refuse_lazy(each)
    memory = Memory()
    memory.follow_modules_of(*functions)
    memory.keep(*state)
    for loader in loaders:
        memory.keep_loader(loader)
    memory.keep(*functions)
    generators = RandomState()
    try:
        for loader in memory.loaders:
            # Workers that outlive an epoch have random states that nobody can read: the test starts its own workers.
            vars(loader)["_iterator"] = None
        yield memory
    finally:
        with interrupts_held():
            for loader in memory.loaders:
                stop = getattr(vars(loader)["_iterator"], "_shutdown_workers", None)
                if stop is not None:
                    stop()
            memory.put_back()
            generators.put_back()


def _refuse_lazy(value: object) -> None:
    if isinstance(value, nn.Module) and any(is_lazy(each) for each in (*value.parameters(), *value.buffers())):
        name = type(value).__name__
        raise ValueError(f"{name} has a lazy parameter without a shape: run one batch through it first")


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Raises a Ctrl-C inside the block at the end of the block. Only the main thread gets Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            handler(*held[0])
