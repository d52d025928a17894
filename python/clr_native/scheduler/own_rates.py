"""Checks and writes the rates of the get_lr() of a class derived from CyclicLR."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from clr_native.checks import group_label, number
from clr_native.torch_groups import equals_stored, snapshot_of

Group = dict[str, Any]
_WRITTEN: tuple[str, ...] = ("lr", "momentum", "betas")


def write_rates(groups: Sequence[Group], ask: Callable[[], Any]) -> list[float]:
    """Writes the learning rates that ``ask()`` returns, one for each group, and returns them."""
    found = ask()
    name = f"{getattr(ask, '__name__', 'get_lr')}()"
    if not isinstance(found, Iterable):
        raise TypeError(f"{name} gave {found!r}: it must give a list of learning rates")
    rates = [number(f"{group_label(index)}lr", lr) for index, lr in enumerate(found)]
    if len(rates) != len(groups):
        raise ValueError(f"{name} gave {len(rates)} learning rates for {len(groups)} parameter groups")
    for index, lr in enumerate(rates):
        if not (math.isfinite(lr) and lr >= 0.0):
            raise ValueError(f"{group_label(index)}lr={lr!r} of {name} must be finite and not negative")
    for group, lr in zip(groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
    for index, (group, lr) in enumerate(zip(groups, rates, strict=True)):
        if not equals_stored(group["lr"], lr):
            raise ValueError(
                f"{group_label(index)}lr={lr!r} cannot be put into a tensor that another group holds too: "
                "give each group a tensor of its own"
            )
    return rates


@contextlib.contextmanager
def unchanged_on_error(groups: Sequence[Group]) -> Iterator[None]:
    """Puts learning rates and momenta back if the block raises."""
    held = [(group, {name: group[name] for name in _WRITTEN if name in group}) for group in groups]
    contents = [(each, snapshot_of(each)) for _, values in held for each in _tensors(values)]
    try:
        yield
    except BaseException:
        for group, values in held:
            group.update(values)
        with torch.no_grad():
            for tensor, before in contents:
                tensor.copy_(before)
        raise


def _tensors(values: Group) -> Iterator[Tensor]:
    for value in values.values():
        yield from (
            each for each in (value if isinstance(value, (tuple, list)) else [value]) if isinstance(each, Tensor)
        )
