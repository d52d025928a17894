"""The values that a scheduler last wrote to the groups, and the function by which get_lr() writes momentum alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from clr_native import _core
from clr_native.checks import number
from clr_native.schedules import Schedule
from clr_native.torch_groups import snapshot_of


class LastValues(NamedTuple):
    """The values that were last written to each group, if they are not those of the scheduler's last step."""

    rates: list[float]
    momenta: list[float | None]
    epoch: int | None  # The rates are those of this batch; None: the batch is not known.

    def extended(self, rates: Sequence[float], momenta: Sequence[float | None]) -> LastValues:
        """Returns these values, with those of further groups appended."""
        count = len(self.rates)
        return self._replace(rates=[*self.rates, *rates[count:]], momenta=[*self.momenta, *momenta[count:]])


def saved_values(state: Mapping[str, Any], count: int) -> LastValues | None:
    """Returns the values in a state of ours, or None if they are missing, as in an older state or in torch's."""
    if not {"_last_lr", "_last_momentum"} <= state.keys():
        return None
    for name in ("_last_lr", "_last_momentum"):
        if len(state[name]) != count:
            raise ValueError(f"{name} with {len(state[name])} entries must have one for each of the {count} groups")
    rates = [number("_last_lr", lr) for lr in state["_last_lr"]]
    momenta = [None if each is None else number("_last_momentum", each) for each in state["_last_momentum"]]
    return LastValues(rates, momenta, None)


def move_momentum(
    groups: Sequence[dict[str, Any]], schedules: Sequence[Schedule], keys: Sequence[str | None], step: int
) -> tuple[list[float | Tensor], list[float | None]]:
    """Writes the momentum of ``step`` to the groups. Returns the learning rates, as new objects, and the momenta."""
    # The step's own writer checks and writes. Its dicts share the momentum entries with the groups, but not lr.
    beside = [
        {name: group[name] for name in ("lr", "lr_scale", key) if name in group}
        for group, key in zip(groups, keys, strict=True)
    ]
    for each in beside:
        if "lr" in each:
            each["lr"] = snapshot_of(each["lr"])
    writer = _core.GroupWriter(
        [each._native for each in schedules], [each._scale_fns for each in schedules], list(keys)
    )
    writer.write(beside, step)
    for group, each, key in zip(groups, beside, keys, strict=True):
        if key is not None and each[key] is not group[key]:  # A tensor has been filled in place.
            group[key] = each[key]
    return [each["lr"] for each in beside], writer.last_momentum()
