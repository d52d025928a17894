"""One step of CyclicLR beside torch's, over the parameter groups of optimizers of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch.optim import Optimizer, lr_scheduler

from bench.harness.contenders import (
    BASE_MOMENTUM,
    MAX_MOMENTUM,
    OURS,
    SCHEDULE_TOLERANCE,
    STEP_SIZE_UP,
    VERIFIED_STEPS,
    bounds,
)
from bench.harness.names import TORCH_SCHEDULER
from clr_native import CyclicLR

SCHEDULERS: dict[str, Callable[..., lr_scheduler.LRScheduler]] = {
    OURS: CyclicLR,
    TORCH_SCHEDULER: lr_scheduler.CyclicLR,
}
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam}
GROUPS = (1, 100, 1000)


@dataclass(frozen=True)
class Case:
    """What a scheduler steps over. Momentum goes to "momentum" of SGD and to "betas" of Adam."""

    optimizer: str
    groups: int
    own_bounds: bool

    @property
    def title(self) -> str:
        return f"{self.optimizer}, {self.groups} groups" + ", own bounds" * self.own_bounds


CASES = [Case(*case) for case in product(OPTIMIZERS, GROUPS, (False, True)) if case[1] > 1 or not case[2]]


def build(name: str, case: Case) -> tuple[Optimizer, lr_scheduler.LRScheduler]:
    groups = [{"params": [torch.zeros(1, requires_grad=True)]} for _ in range(case.groups)]
    limits = bounds(case.groups)
    arguments: dict[str, Any] = dict(zip(("base_lr", "max_lr"), limits[0], strict=True))
    if case.own_bounds:
        arguments = dict(zip(("base_lr", "max_lr"), map(list, zip(*limits, strict=True)), strict=True))
    momenta = {"base_momentum": BASE_MOMENTUM, "max_momentum": MAX_MOMENTUM}
    optimizer = OPTIMIZERS[case.optimizer](groups, lr=limits[0][0])
    scheduler = SCHEDULERS[name](optimizer, **arguments, **momenta, step_size_up=STEP_SIZE_UP)
    optimizer.step()  # or the first step of the scheduler warns of the order
    return optimizer, scheduler


def values(optimizer: Optimizer) -> list[float]:
    groups = optimizer.param_groups
    momenta = [group["betas"][0] if "betas" in group else group["momentum"] for group in groups]
    return [*(group["lr"] for group in groups), *momenta]


def verify(case: Case) -> None:
    """AssertionError unless both write the same values, up to the rounding of torch's."""
    built = [build(name, case) for name in SCHEDULERS]
    for _ in range(VERIFIED_STEPS):
        found, wanted = (values(optimizer) for optimizer, _ in built)
        errors = [abs(a - b) for a, b in zip(found, wanted, strict=True)]
        assert max(errors) <= SCHEDULE_TOLERANCE, f"{case.title}: off by {max(errors)}"
        for _, scheduler in built:
            scheduler.step()
