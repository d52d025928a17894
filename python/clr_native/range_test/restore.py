"""Nothing is disturbed: what a range test touches is remembered before it and put back after it, bit for bit."""

from __future__ import annotations

import random
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

Restore: TypeAlias = Callable[[], object]


class Memory:
    """What objects held, and how to put it back into the same objects.

    Dicts, lists, deques, sets and tensors are followed; anything else is put back as the object that it was. A tensor
    is written in place, so that whoever else holds it, or a view of it, sees the old values again.
    """

    def __init__(self) -> None:
        self._known: dict[int, object] = {}  # id to object; holding it keeps the id its own
        self._restores: list[Restore] = []

    def keep(self, value: object) -> None:
        """Remember `value` and everything that can be reached from it."""
        if id(value) in self._known or isinstance(value, (str, bytes, int, float)):
            return
        self._known[id(value)] = value
        if isinstance(value, Tensor):
            self._keep_tensor(value)
        elif isinstance(value, (nn.Module, Optimizer)):
            self.keep(vars(value))
        elif isinstance(value, dict):
            items = list(value.items())
            self._restores.append(lambda: _put_back_dict(value, items))
            for _, held in items:
                self.keep(held)
        elif isinstance(value, (list, deque)):
            members = list(value)
            self._restores.append(lambda: _put_back_list(value, members))
            for held in members:
                self.keep(held)
        elif isinstance(value, set):
            held_by_set = set(value)
            self._restores.append(lambda: _put_back_set(value, held_by_set))
        elif isinstance(value, tuple):
            for held in value:
                self.keep(held)

    def _keep_tensor(self, tensor: Tensor) -> None:
        if is_lazy(tensor):
            raise ValueError("the model has a lazy parameter without a shape: run one batch through it first")
        if not tensor.is_leaf:  # a value that some graph made: it is made anew, not written to
            return
        own = tensor.detach()  # the same memory, whatever `tensor.data` is made to be
        content, requires_grad, gradient = _memory_of(own).clone(), tensor.requires_grad, tensor.grad
        if gradient is not None:
            self.keep(gradient)

        def put_back() -> None:
            _memory_of(own).copy_(content)
            if not _same_memory(tensor, own):
                tensor.data = own
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
            if tensor.grad is not gradient:
                tensor.grad = gradient

        self._restores.append(put_back)

    @torch.no_grad()
    def put_back(self) -> None:
        """Make everything what it was. May be called several times."""
        for restore in self._restores:
            restore()


def _memory_of(tensor: Tensor) -> Tensor:
    """The tensor without repetitions: an expanded one has several elements in one place, which cannot be written."""
    if tensor.layout is not torch.strided or 0 not in tensor.stride():
        return tensor
    return tensor[tuple(slice(0, 1) if step == 0 else slice(None) for step in tensor.stride())]


def _same_memory(one: Tensor, other: Tensor) -> bool:
    if one.layout is not torch.strided or type(other) is not Tensor:
        return True  # no pointer to compare: a sparse tensor or a wrapper such as DTensor, whose `data` trainers leave
    return (one.data_ptr(), one.dtype, one.shape, one.stride()) == (
        other.data_ptr(),
        other.dtype,
        other.shape,
        other.stride(),
    )


def _put_back_dict(value: dict[Any, Any], items: list[tuple[Any, Any]]) -> None:
    if len(value) == len(items) and all(
        key is old_key and held is old for (key, held), (old_key, old) in zip(value.items(), items, strict=True)
    ):
        return
    value.clear()
    value.update(items)


def _put_back_list(value: list[Any] | deque[Any], members: list[Any]) -> None:
    if len(value) != len(members) or any(held is not old for held, old in zip(value, members, strict=True)):
        value.clear()
        value.extend(members)


def _put_back_set(value: set[Any], members: set[Any]) -> None:
    value.clear()
    value.update(members)


class RandomState:
    """Python's, numpy's and torch's generators, on every device in use, and those of the loaders."""

    def __init__(self, loaders: Iterable[object]) -> None:
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # noqa: NPY002  # the global generator is what users' transforms draw from
        self._torch = torch.get_rng_state()
        cuda_in_use = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # untyped in torch
        self._cuda = torch.cuda.get_rng_state_all() if cuda_in_use else None
        self._mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
        self._own = {generator: generator.get_state() for generator in _generators(loaders)}

    def put_back(self) -> None:
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002  # as above
        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        if self._mps is not None:
            torch.mps.set_rng_state(self._mps)
        for generator, state in self._own.items():
            generator.set_state(state)


def _generators(loaders: Iterable[object]) -> Iterator[torch.Generator]:
    """A DataLoader's generator and its samplers', if it has any of its own."""
    for loader in loaders:
        sampler, batch_sampler = getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)
        for holder in (loader, sampler, batch_sampler, getattr(batch_sampler, "sampler", None)):
            generator = getattr(holder, "generator", None)
            if isinstance(generator, torch.Generator):
                yield generator


@contextmanager
def undisturbed(
    model: nn.Module, optimizer: Optimizer, scaler: object, loaders: Iterable[object]
) -> Iterator[Callable[[], None]]:
    """Everything is as before when the block is left, in whatever way.

    Covers all that hangs on the model's modules and on the optimizer (weights, buffers, gradients, `requires_grad`,
    train/eval modes, optimizer state and groups), the GradScaler, and the random states. Gives a function that puts all
    but the random states back at once, for a test that is repeated. A Ctrl-C while things are put back is raised after
    that.
    """
    memory = Memory()
    for module in model.modules():
        memory.keep(module)
    memory.keep(optimizer)
    if scaler is not None:
        memory.keep(vars(scaler))
    generators = RandomState(loaders)
    try:
        yield memory.put_back
    finally:
        with _interrupts_held():
            memory.put_back()
            generators.put_back()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A Ctrl-C inside the block is raised at its end. Only the main thread gets them."""
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
