"""Writes the rate of a range test into every parameter group, in the group's proportion."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from clr_native.schedules.evaluate import FloatArray

Group = dict[str, Any]


class GroupRates:
    """Drives the learning rates of all groups by one number, keeping the ratios between them.

    The number is the rate of the group with the largest rate. The ratios are those of ``max_lr`` in the groups'
    schedules if every group has one (FusedCyclicSGD), else those of ``lr`` in the groups or, if every ``lr`` is 0, of
    ``initial_lr``. If these are all 0 too, groups get the same rate. A group at 0 among others stays at 0.
    """

    def __init__(self, optimizer: Optimizer, momentum: float | None) -> None:
        self._groups: list[Group] = optimizer.param_groups
        self.ratios = _ratios(self._groups)
        self._momenta = [_momentum_entries(index, group, momentum) for index, group in enumerate(self._groups)]

    def write(self, lr: float) -> None:
        """Writes the rates. Call it before every update: an optimizer's own schedule overwrites them after each."""
        for group, ratio, momenta in zip(self._groups, self.ratios, self._momenta, strict=True):
            rate = float(ratio * lr)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
            group.update(momenta)

    def rates(self, lr: FloatArray) -> FloatArray:
        """Returns [G, S], the rate of each group at each of the rates `lr` [S]."""
        rates: FloatArray = np.multiply.outer(self.ratios, lr)
        return rates


def _ratios(groups: list[Group]) -> FloatArray:
    for rates in (
        [_schedule_peak(group) for group in groups],
        [float(group["lr"]) for group in groups],
        [float(group.get("initial_lr", 0.0)) for group in groups],
    ):
        if None not in rates and max(map(float, filter(None, rates)), default=0.0) > 0.0:
            ratios: FloatArray = np.array(rates, dtype=np.float64)
            ratios /= ratios.max()
            return ratios
    return np.ones(len(groups))


def _schedule_peak(group: Group) -> float | None:
    schedule = group.get("schedule")
    peak = schedule.get("max_lr") if isinstance(schedule, dict) else None
    return None if peak is None else float(peak)


def _momentum_entries(index: int, group: Group, momentum: float | None) -> Group:
    """Returns the entries to write into a group besides its rate: its own momentum, or the one that was asked for."""
    if momentum is None:
        return {"momentum": group["momentum"]} if "momentum" in group else {}
    if "momentum" in group:
        return {"momentum": momentum}
    if "betas" in group:
        return {"betas": (momentum, *group["betas"][1:])}
    raise ValueError(f"momentum={momentum!r}: parameter group {index} has neither 'momentum' nor 'betas', leave it out")
