"""Keeps the momentum that an optimizer had before a scheduler wrote its own, and gives it back."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

from torch.optim import Optimizer

from clr_native.torch_groups import equals_stored, momentum_in, put_momentum

Group = dict[str, Any]
Keys = Sequence[str | None]


class MomentumOwner(Protocol):
    """A ``CyclicLR``. It keeps the momentum that each group had before the scheduler wrote its own."""

    _own_momenta: list[Any]

    def get_last_momentum(self) -> list[float | None]: ...


# The scheduler that last took over an optimizer. It knows the momentum that the groups had before.
_latest: weakref.WeakKeyDictionary[Optimizer, weakref.ref[MomentumOwner]] = weakref.WeakKeyDictionary()


def note_latest(optimizer: Optimizer, scheduler: MomentumOwner) -> None:
    _latest[optimizer] = weakref.ref(scheduler)


def found_momenta(optimizer: Optimizer) -> list[Any]:
    """Returns the momentum of each group. If another CyclicLR has just written it, returns the one before."""
    groups = optimizer.param_groups
    latest = _latest.get(optimizer, lambda: None)()
    found = [momentum_in(group) for group in groups]
    if latest is None or len(latest._own_momenta) != len(groups):
        return found
    written = latest.get_last_momentum()
    return [
        own if last is not None and equals_stored(value, last) else value
        for value, last, own in zip(found, written, latest._own_momenta, strict=True)
    ]


def give_momenta_back(groups: Sequence[Group], own: Sequence[Any], keys: Keys) -> None:
    for group, momentum, key in zip(groups, own, keys, strict=False):
        put_momentum(group, key, momentum)


def release_momenta(
    groups: Sequence[Group], own: Sequence[Any], before: Keys, now: Keys, last: Sequence[float | None]
) -> None:
    """Gives back the momenta of groups whose schedule had momentum and whose new schedule has none."""
    for group, momentum, key, new_key, written in zip(groups, own, before, now, last, strict=False):
        if key is not None and new_key is None and written is not None and equals_stored(momentum_in(group), written):
            put_momentum(group, key, momentum)
