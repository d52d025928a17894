"""The two ways to write the optimizer's part of a training loop, with the same settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CyclicLR

from clr_native import FusedCyclicSGD

BASE_MOMENTUM, MAX_MOMENTUM = 0.85, 0.95
MODE: Final = "triangular2"
WEIGHT_DECAY = 1e-3
NESTEROV = True


class Bounds(NamedTuple):
    """The rates between which lr cycles."""

    base_lr: float
    max_lr: float


TUNED = Bounds(0.002, 0.08)

# The optimizer, and the function that the loop calls after `backward()`.
Lines: TypeAlias = tuple[Optimizer, Callable[[], object]]


def _fused(parameters: Iterable[nn.Parameter], step_size: int, bounds: Bounds) -> Lines:
    optimizer = FusedCyclicSGD(
        parameters,
        base_lr=bounds.base_lr,
        max_lr=bounds.max_lr,
        step_size_up=step_size,
        mode=MODE,
        base_momentum=BASE_MOMENTUM,
        max_momentum=MAX_MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        nesterov=NESTEROV,
    )
    return optimizer, optimizer.step


def _torch(parameters: Iterable[nn.Parameter], step_size: int, bounds: Bounds) -> Lines:
    optimizer = SGD(
        parameters,
        lr=bounds.base_lr,
        momentum=MAX_MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        nesterov=NESTEROV,
        foreach=False,
    )
    scheduler = CyclicLR(
        optimizer,
        base_lr=bounds.base_lr,
        max_lr=bounds.max_lr,
        step_size_up=step_size,
        mode=MODE,
        base_momentum=BASE_MOMENTUM,
        max_momentum=MAX_MOMENTUM,
    )

    def step() -> None:
        optimizer.step()
        scheduler.step()

    return optimizer, step


@dataclass(frozen=True)
class Contender:
    """A library, the calls of its optimizer in the loop, and the function that sets them up."""

    library: str
    calls: str
    lines: Callable[[Iterable[nn.Parameter], int, Bounds], Lines]
    """(parameters, steps from bottom to peak, bounds) to optimizer and calls."""


CLR_NATIVE = Contender("clr_native", "FusedCyclicSGD.step()", _fused)
TORCH = Contender("torch", "SGD.step(), CyclicLR.step()", _torch)
