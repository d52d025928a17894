"""Two optimizers that get the same gradients: one on the CPU, one on the device of the stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from helpers import clones, give, gradient_sets, parameters
from standin.exchange import Exchange

SHAPES: list[int | tuple[int, ...]] = [(5, 7), 3, 0, 130]
COUNTED = ("applied_steps", "skipped_steps", "n_averaged", "n_updates", "lr", "momentum")


def make(over: list[Tensor], **settings: Any) -> FusedCyclicSGD:
    groups: list[dict[str, Any]] = [{"params": over[:2]}, {"params": over[2:], "max_lr": 0.3, "step_size_up": 2}]
    return FusedCyclicSGD(groups, 0.01, 0.1, step_size_up=3, mode="exp_range", gamma=0.9, **settings)


def step(optimizer: FusedCyclicSGD, **amp: Tensor) -> None:
    """One step, with the attributes that a GradScaler sets."""
    vars(optimizer).update(amp)
    optimizer.step()
    for name in amp:
        delattr(optimizer, name)


class Twins:
    def __init__(self, exchange: Exchange, dtype: torch.dtype = torch.float32, **settings: Any) -> None:
        self.exchange = exchange
        self.on_cpu = parameters(SHAPES, dtype)
        self.on_gpu = clones(self.on_cpu)
        with self.cpu():
            self.here = make(self.on_cpu, **settings)
        self.there = make(self.on_gpu, **settings)
        self.sets = iter(gradient_sets(self.on_cpu, 40))

    @contextmanager
    def cpu(self) -> Iterator[None]:
        """Tensors lie on the CPU, as they really do."""
        self.exchange.set_default(-1)
        yield
        self.exchange.set_default(0)

    def both(self, do: Callable[[FusedCyclicSGD], object]) -> None:
        with self.cpu():
            do(self.here)
        do(self.there)

    def give(self) -> None:
        """The next gradients, at the same places of memory on the GPU."""
        gradients = next(self.sets)
        give(self.on_cpu, gradients)
        for parameter, gradient in zip(self.on_gpu, gradients, strict=True):
            if parameter.grad is None:
                parameter.grad = gradient.clone()
            else:
                parameter.grad.copy_(gradient)

    def step(self, count: int = 1, **amp: float) -> None:
        for _ in range(count):
            self.give()
            given = {name: torch.tensor(value) for name, value in amp.items()}
            self.both(lambda optimizer, given=given: step(optimizer, **given))  # type: ignore[misc]  # bound at once

    def assert_same_tensors(self) -> None:
        for mine, other in zip(self.on_cpu, self.on_gpu, strict=True):
            assert torch.equal(mine, other)
            kept, there = self.here.state[mine], self.there.state[other]
            assert kept.keys() == there.keys()
            for name, tensor in kept.items():
                assert torch.equal(tensor, there[name]), name

    def assert_same_groups(self) -> None:
        for mine, other in zip(self.here.param_groups, self.there.param_groups, strict=True):
            assert [mine[name] for name in COUNTED] == [other[name] for name in COUNTED]

    def assert_same(self) -> None:
        """Waits for the device."""
        assert self.here.applied_steps == self.there.applied_steps
        self.assert_same_tensors()
        self.assert_same_groups()
