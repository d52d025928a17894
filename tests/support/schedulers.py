"""Helpers of the tests of CyclicLR: optimizers, the values in their groups, and what an error must leave alone."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from clr_native import CyclicLR
from helpers import picture, raised

Holder = Optimizer | LRScheduler

COPIES: list[Callable[[Any], Any]] = [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))]


def weights(groups: int) -> list[dict[str, Any]]:
    return [{"params": [torch.nn.Parameter(torch.ones(3))]} for _ in range(groups)]


def sgd(groups: int = 1, **settings: Any) -> SGD:
    return SGD(weights(groups), **{"lr": 7.0, "momentum": 0.5, **settings})


def adam(groups: int = 1, **settings: Any) -> Adam:
    return Adam(weights(groups), **{"lr": 7.0, "betas": (0.5, 0.75), **settings})


def tensor_lr(groups: int = 1) -> SGD:
    """Returns an SGD in which each group's lr is a tensor of its own."""
    optimizer = sgd(groups)
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(7.0)
    return optimizer


def optimizer_of(holder: Holder) -> Optimizer:
    return holder if isinstance(holder, Optimizer) else holder.optimizer


def add(holder: Holder, **own: Any) -> None:
    optimizer_of(holder).add_param_group({**weights(1)[0], **own})


def advance(*schedulers: LRScheduler, steps: int = 1) -> None:
    """Steps through batches without gradients."""
    for _ in range(steps):
        for scheduler in schedulers:
            scheduler.optimizer.step()
            scheduler.step()


def rates(holder: Holder) -> list[float]:
    return [float(group["lr"]) for group in optimizer_of(holder).param_groups]


def momenta(holder: Holder) -> list[float]:
    groups = optimizer_of(holder).param_groups
    return [float(group["betas"][0] if "betas" in group else group["momentum"]) for group in groups]


def values(holder: Holder) -> list[tuple[float, float]]:
    return list(zip(rates(holder), momenta(holder), strict=True))


def seen(scheduler: LRScheduler, steps: int) -> list[tuple[float, float]]:
    """Returns the values of the first group in each of these batches."""
    found = []
    for _ in range(steps):
        found.append(values(scheduler)[0])
        advance(scheduler)
    return found


def assert_same_run(own: LRScheduler, other: LRScheduler, steps: int, step: Callable[..., None] = advance) -> None:
    """Compares what stands in the groups in each of these batches, and at their end."""
    for _ in range(steps):
        assert values(own) == values(other)
        assert own.get_last_lr() == other.get_last_lr()
        step(own)
        step(other)
    assert values(own) == values(other)


def load(resumed: LRScheduler, saved: LRScheduler, *, optimizer_last: bool = False) -> None:
    """Loads the states of a scheduler and of its optimizer, in either order."""
    optimizer_state, state = copy.deepcopy((saved.optimizer.state_dict(), saved.state_dict()))
    if not optimizer_last:
        resumed.optimizer.load_state_dict(optimizer_state)
    resumed.load_state_dict(state)
    if optimizer_last:
        resumed.optimizer.load_state_dict(optimizer_state)


def _answer(call: Callable[[], Any]) -> Any:
    return call() if raised(call) is None else "an error"  # in a group that was spoiled


def _told(holder: Holder) -> Any:
    if isinstance(holder, Optimizer):
        return picture(holder)
    told = [picture(holder.optimizer), holder.last_epoch, _answer(holder.get_last_lr), _answer(holder.state_dict)]
    if isinstance(holder, CyclicLR):
        told += [holder.get_last_momentum(), holder._get_lr_called_within_step]
    return told


@contextmanager
def refused(message: str, *holders: Holder, error: Any = (TypeError, ValueError)) -> Iterator[None]:
    """The block raises this error, and changes nothing in these optimizers and schedulers."""
    before = [_told(holder) for holder in holders]
    with pytest.raises(error, match=message):
        yield
    assert [_told(holder) for holder in holders] == before


def bound(low: float, high: float, up: int, down: int, step: int) -> float:
    """Returns the error of torch's phase, plus two ulp for the arithmetic of both."""
    length = up + down
    return (high - low) * 2**-52 * (step / length + 4) * length / min(up, down) + 2 * math.ulp(high)
