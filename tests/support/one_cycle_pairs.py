"""Pairs of torch's SGD and OneCycleLR, and runs of these pairs and of the optimizers that took them over."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from helpers import every_parameter, gradient_sets, parameters, train

SHAPES = (1, (3, 5), 33, 70)
STEPS = 60

SGDS: dict[str, dict[str, Any]] = {
    "plain": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "dampened": {"momentum": 0.8, "dampening": 0.3, "maximize": True},
}
LISTS: dict[str, Any] = {"max_lr": [0.1, 0.3], "base_momentum": [0.7, 0.85], "max_momentum": [0.9, 0.95]}


def torch_pair(sgd: dict[str, Any], cycle: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    """Returns a pair with two groups, each with its own rates and momenta."""
    over = parameters(SHAPES, dtype)
    groups: list[dict[str, Any]] = [{"params": over[:2]}, {"params": over[2:], "weight_decay": 0.1, "name": "late"}]
    optimizer = SGD(groups, lr=1.0, foreach=False, **sgd)
    return optimizer, OneCycleLR(optimizer, **{"total_steps": STEPS, **LISTS, **cycle})


def standing(optimizer: torch.optim.Optimizer) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([(group["lr"], group["momentum"]) for group in optimizer.param_groups])


def run(optimizer: Any, steps: range, scheduler: Any = None) -> list[Any]:
    """Trains, and returns lr and momentum of each update."""
    over = every_parameter(optimizer)
    sets, found = gradient_sets(over), []
    for step in steps:
        found.append(standing(optimizer))
        train(optimizer, over, sets, 1, step)
        if scheduler is not None and step + 1 < scheduler.total_steps:  # the last value is not used, or an error
            scheduler.step()
    return found


def assert_within_torchs_rounding(own: list[Any], theirs: list[Any]) -> None:
    for a, b in zip(own, theirs, strict=True):
        assert (np.abs(a - b) <= 2**-51 * np.array([[0.1, 1], [0.3, 1]])).all()
