"""Helpers of the tests of CyclicLR: optimizers, and the values in their groups."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler


def weights(groups: int) -> list[dict[str, Any]]:
    return [{"params": [torch.nn.Parameter(torch.ones(3))]} for _ in range(groups)]


def sgd(groups: int = 1, **settings: Any) -> SGD:
    return SGD(weights(groups), **{"lr": 7.0, "momentum": 0.5, **settings})


def adam(groups: int = 1, **settings: Any) -> Adam:
    return Adam(weights(groups), **{"lr": 7.0, "betas": (0.5, 0.75), **settings})


def advance(scheduler: LRScheduler, optimizer: Optimizer, steps: int = 1) -> None:
    """Steps through batches without gradients."""
    for _ in range(steps):
        optimizer.step()
        scheduler.step()


def rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def momenta(optimizer: Optimizer) -> list[float]:
    groups = optimizer.param_groups
    return [float(group["betas"][0] if "betas" in group else group["momentum"]) for group in groups]


def values(optimizer: Optimizer) -> list[tuple[float, float]]:
    return list(zip(rates(optimizer), momenta(optimizer), strict=True))


def bound(low: float, high: float, up: int, down: int, step: int) -> float:
    """Returns the error of torch's phase, plus two ulp for the arithmetic of both."""
    length = up + down
    return (high - low) * 2**-52 * (step / length + 4) * length / min(up, down) + 2 * math.ulp(high)
