"""Two optimizers that get the same gradients: one on the CPU, one on a GPU, which may be the stand-in's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from typing import Any, Protocol

import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from helpers import bits, give, gradient_sets, parameters

SHAPES: list[int | tuple[int, ...]] = [(5, 7), 3, 0, 130]
COUNTED = ("applied_steps", "skipped_steps", "n_averaged", "n_updates", "lr", "momentum")


class Home(Protocol):
    """The place of tensors on the GPU."""

    kind: str
    """What torch calls its devices."""

    def copy(self, tensor: Tensor) -> Tensor:
        """Returns a copy on the GPU of a tensor on the CPU, in the same layout."""

    def cpu(self) -> AbstractContextManager[object]:
        """Returns a block for tensors of the CPU. Outside it, the stand-in would put them on its GPU."""


class Machine(Home, Protocol):
    """A GPU: real, or the stand-in's."""

    def new_stream(self) -> Any: ...

    def use(self, stream: Any) -> None:
        """Makes a stream the current one. It waits for the stream before. None: the default stream."""

    def capture(self, stream: Any) -> AbstractContextManager[Any]:
        """Returns a block that captures the work in this stream, the current one, as a graph."""

    def finish(self) -> None:
        """The device has done all that it was given."""

    def replay(self, graph: Any) -> None:
        """Replays a graph on the current stream."""


def make(over: list[Tensor], **settings: Any) -> FusedCyclicSGD:
    groups: list[dict[str, Any]] = [{"params": over[:2]}, {"params": over[2:], "max_lr": 0.3, "step_size_up": 2}]
    return FusedCyclicSGD(groups, 0.01, 0.1, step_size_up=3, mode="exp_range", gamma=0.9, **settings)


def step(optimizer: FusedCyclicSGD, **amp: Tensor | float) -> None:
    """Makes one step, with the attributes that a GradScaler sets."""
    vars(optimizer).update(amp)
    optimizer.step()
    for name in amp:
        delattr(optimizer, name)


def assert_same_bits(mine: Tensor, other: Tensor, what: str) -> None:
    assert (mine.dtype, mine.shape) == (other.dtype, other.shape), what
    assert bits(mine) == bits(other.cpu()), what


class Twins:
    """Two optimizers. `over`: parameters on the CPU. The optimizer on the GPU gets copies of them."""

    def __init__(
        self,
        home: Home,
        dtype: torch.dtype = torch.float32,
        *,
        over: Sequence[Tensor] | None = None,
        made: Callable[..., FusedCyclicSGD] = make,
        **settings: Any,
    ) -> None:
        self.home = home
        self.on_cpu = parameters(SHAPES, dtype) if over is None else list(over)
        self.on_gpu = [home.copy(parameter.detach()).requires_grad_() for parameter in self.on_cpu]
        with home.cpu():
            self.here = made(self.on_cpu, **settings)
        self.there = made(self.on_gpu, **settings)
        self.sets = cycle(gradient_sets(self.on_cpu, 40 if over is None else 4))

    def both(self, do: Callable[[FusedCyclicSGD], object]) -> None:
        with self.home.cpu():
            do(self.here)
        do(self.there)

    def give(self) -> None:
        """Sets the next gradients, at the same places of memory on the GPU."""
        gradients = next(self.sets)
        give(self.on_cpu, [gradient.clone() for gradient in gradients])
        for parameter, gradient in zip(self.on_gpu, gradients, strict=True):
            if parameter.grad is None:
                parameter.grad = self.home.copy(gradient)
            else:
                parameter.grad.copy_(gradient)

    def step(self, count: int = 1, **amp: float) -> None:
        for _ in range(count):
            self.give()
            given = {name: torch.tensor(value) for name, value in amp.items()}
            with self.home.cpu():
                step(self.here, **given)
            step(self.there, **{name: self.home.copy(value) for name, value in given.items()})

    def assert_same_tensors(self) -> None:
        for i, (mine, other) in enumerate(zip(self.on_cpu, self.on_gpu, strict=True)):
            assert_same_bits(mine, other, f"parameter {i}")
            kept, there = self.here.state[mine], self.there.state[other]
            assert kept.keys() == there.keys()
            for name, tensor in kept.items():
                assert_same_bits(tensor, there[name], f"{name} of parameter {i}")

    def assert_same_groups(self) -> None:
        for mine, other in zip(self.here.param_groups, self.there.param_groups, strict=True):
            assert [mine[name] for name in COUNTED] == [other[name] for name in COUNTED]

    def assert_same(self) -> None:
        """Compares everything. Waits for the device."""
        assert self.here.applied_steps == self.there.applied_steps
        self.assert_same_tensors()
        self.assert_same_groups()
