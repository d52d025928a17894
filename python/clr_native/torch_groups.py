"""Learning rate and momentum as they stand in a torch optimizer's parameter group: numbers or tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from clr_native.checks import group_label
from clr_native.schedules import Schedule


def as_stored_in(present: object, value: float) -> float | Tensor:
    """Returns the value in the form, number or tensor, that stands in the group now."""
    return torch.full_like(present, value, requires_grad=False) if isinstance(present, Tensor) else value


def equals_stored(present: Any, value: float) -> bool:
    """True if ``present`` equals what a write of the value would leave in the group."""
    return (
        bool((present == as_stored_in(present, value)).all()) if isinstance(present, Tensor) else bool(present == value)
    )


def snapshot_of(value: Any) -> Any:
    """Returns a copy of a tensor, which may change in its group; returns a number as it is."""
    return value.detach().clone() if isinstance(value, Tensor) else value


@contextlib.contextmanager
def initial_lr_noted(optimizer: Optimizer) -> Iterator[None]:
    """Writes each group's own rate as ``initial_lr``, for other schedulers, where none stands.

    Takes it out again if the block raises.
    """
    for index, group in enumerate(optimizer.param_groups):
        if "lr" not in group:
            raise ValueError(f"{group_label(index)}{type(optimizer).__name__} has no 'lr' there to be set")
    fresh = [group for group in optimizer.param_groups if "initial_lr" not in group]
    for group in fresh:
        group["initial_lr"] = snapshot_of(group["lr"])
    try:
        yield
    except BaseException:
        for group in fresh:
            del group["initial_lr"]
        raise


def _place(group: Mapping[str, Any]) -> str | None:
    return next((key for key in ("betas", "momentum") if key in group), None)


def momentum_key(group: Mapping[str, Any], schedule: Schedule, optimizer: object, index: int) -> str | None:
    """Returns the key that the schedule's momentum goes to: "betas", as the first of them, or "momentum"; None if the
    schedule has none."""
    if not any(piece.has_momentum for piece in schedule._cached_pieces):
        return None
    place = _place(group)
    if place is None:
        raise ValueError(
            f"{group_label(index)}cycle_momentum=True, but {type(optimizer).__name__} has neither momentum nor "
            "betas: pass cycle_momentum=False, to the schedule where there is one"
        )
    return place


def momentum_in(group: Mapping[str, Any]) -> Any:
    """Returns the momentum or beta1 that stands in a group; None if the group has neither."""
    place = _place(group)
    return None if place is None else snapshot_of(group["betas"][0] if place == "betas" else group[place])


def put_momentum(group: dict[str, Any], key: str | None, value: Any) -> None:
    """Writes a momentum that ``momentum_in`` returned."""
    if key is None:
        return
    present = group["betas"][0] if key == "betas" else group[key]
    if isinstance(present, Tensor):
        present.fill_(value)
    elif key == "betas":
        group["betas"] = (value, *group["betas"][1:])
    else:
        group[key] = value
