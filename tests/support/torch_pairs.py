"""Pairs of torch's SGD and a scheduler, and runs of these pairs and of the optimizers that took them over."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from helpers import every_parameter, give, gradient_sets, parameters

SHAPES = (1, (3, 5), 33, 70)
STEPS = 60

SGDS: dict[str, dict[str, Any]] = {
    "plain": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "dampened": {"momentum": 0.8, "dampening": 0.3, "maximize": True},
}
LISTS: dict[str, Any] = {"max_lr": [0.1, 0.3], "base_momentum": [0.7, 0.85], "max_momentum": [0.9, 0.95]}


def _sgd(settings: dict[str, Any], dtype: torch.dtype) -> SGD:
    over = parameters(SHAPES, dtype)
    groups: list[dict[str, Any]] = [{"params": over[:2]}, {"params": over[2:], "weight_decay": 0.1, "name": "late"}]
    return SGD(groups, lr=1.0, foreach=False, **settings)


def one_cycle_pair(sgd: dict[str, Any], cycle: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    """Returns a pair with two groups, each with its own rates and momenta."""
    optimizer = _sgd(sgd, dtype)
    return optimizer, OneCycleLR(optimizer, **{"total_steps": STEPS, **LISTS, **cycle})


def cyclic_pair(sgd: dict[str, Any], cycle: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    """Returns a pair with two groups, each with its own bounds."""
    optimizer = _sgd(sgd, dtype)
    return optimizer, CyclicLR(optimizer, [0.01, 0.02], [0.1, 0.3], base_momentum=0.7, max_momentum=0.9, **cycle)


def standing(optimizer: torch.optim.Optimizer) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([(group["lr"], group["momentum"]) for group in optimizer.param_groups])


def run(optimizer: Any, steps: range, scheduler: Any = None) -> list[Any]:
    """Trains, and returns lr and momentum of each update. The last parameter gets its first gradient late."""
    over = every_parameter(optimizer)
    sets, found = gradient_sets(over), []
    for step in steps:
        found.append(standing(optimizer))
        *others, last = sets[step % len(sets)]
        give(over, [*others, last if step >= 5 else None])
        optimizer.step()
        # The value after the last step is not used, or an error.
        if scheduler is not None and step + 1 < getattr(scheduler, "total_steps", math.inf):
            scheduler.step()
    return found


def assert_within_torchs_rounding(own: list[Any], theirs: list[Any]) -> None:
    for a, b in zip(own, theirs, strict=True):
        assert (np.abs(a - b) <= 2**-51 * np.array([[0.1, 1], [0.3, 1]])).all()
