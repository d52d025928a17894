"""Helpers of the tests of AMP and of torch's faults: optimizers of ours and torch's, and scalers that have begun."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer

from clr_native import FusedCyclicSGD, GradScaler
from helpers import give, parameters

INF, NAN = float("inf"), float("nan")
SCALERS: list[type[torch.amp.GradScaler]] = [GradScaler, torch.amp.GradScaler]


def ours(over: Any, **settings: Any) -> FusedCyclicSGD:
    settings.setdefault("grad_scale_in_step", True)
    return FusedCyclicSGD(over, 0.25, 0.5, step_size_up=3, **settings)


def loop(over: Any, **settings: Any) -> SGD:
    return SGD(over, lr=0.25, momentum=0.9, foreach=False, **settings)


def fused(over: Any, **settings: Any) -> SGD:
    return SGD(over, lr=0.25, momentum=0.9, fused=True, **settings)


def mended(what: str) -> None:
    pytest.skip(f"torch {torch.__version__} has mended this: {what}")


def with_gradients(make: Callable[..., Optimizer] = ours, value: float = 8.0, **settings: Any) -> Any:
    """Returns an optimizer, made by ``make``, of two parameters whose gradients are ``value`` throughout."""
    over = parameters([9, (3, 4)])
    optimizer = make(over, **settings)
    give(over, [torch.full_like(p, value) for p in over])
    return optimizer


def scaled(kind: type[torch.amp.GradScaler] = GradScaler, scale: float = 8.0, **settings: Any) -> torch.amp.GradScaler:
    """Returns a scaler that has scaled a loss."""
    scaler = kind("cpu", init_scale=scale, **settings)
    scaler.scale(torch.ones(()))
    return scaler


def amp_attributes(optimizer: Optimizer) -> dict[str, object]:
    """Returns the attributes that a scaler has set on the optimizer."""
    return {name: value for name, value in vars(optimizer).items() if name in ("grad_scale", "found_inf")}
