"""torch's OneCycleLR: the schedule that a group of it follows, and one that follows schedules of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import OneCycleLR

from clr_native.schedules import OneCycleSchedule, Schedule
from clr_native.schedules.lengths import share_rising, solution

Group = dict[str, Any]

# torch's state has this key. The rates and the boundaries of momentum stand only in the optimizer's groups.
TORCH_MARK = "_schedule_phases"
# If these are equal in all groups, torch's class has the same schedule: it takes lists of rates and momenta.
_SAME_FOR_TORCH = ("convention", "total_steps", "_rising", "anneal_strategy", "three_phase", "cycle_momentum")


def schedule_in(state: Mapping[str, Any], group: Mapping[str, Any]) -> OneCycleSchedule:
    """Returns the schedule of a group, from the state of torch's scheduler. Raises KeyError if a key is missing."""
    cycles = bool(state["cycle_momentum"])
    names = ("initial_lr", "max_lr", "min_lr", *(("base_momentum", "max_momentum") if cycles else ()))
    for name in names:
        if name not in group:
            raise ValueError(
                f"{name}=None: torch's OneCycleLR keeps it in the groups of its optimizer: load that one's state first"
            )
    values: dict[str, Any] = {name: float(group[name]) for name in names}
    phases, total = state["_schedule_phases"], state["total_steps"]
    end = phases[-1]["end_step"] + 1
    if total != end:
        raise ValueError(f"total_steps={total!r} must be {end!r}, where the phases of this OneCycleLR end")
    return OneCycleSchedule(
        values["max_lr"],
        total,
        pct_start=share_rising(phases[0]["end_step"] + 1.0, total),
        anneal_strategy=state["_anneal_func_type"],
        div_factor=_divisor(values["max_lr"], values["initial_lr"]),
        final_div_factor=_divisor(values["initial_lr"], values["min_lr"]),
        three_phase=len(phases) == 3,
        cycle_momentum=cycles,
        **{name: values[name] for name in names if name.endswith("_momentum")},
    )


def _divisor(dividend: float, quotient: float) -> float:
    if dividend == quotient:  # both may be 0
        return 1.0
    if 0.0 in (dividend, quotient):
        return math.inf
    return solution(lambda x: dividend / x, quotient, near=dividend / quotient)


def one_cycle_lr(sgd: torch.optim.SGD, schedules: Sequence[Schedule], position: int) -> OneCycleLR:
    """Returns torch's scheduler of these one-cycle schedules, at a position in them."""
    one_cycle = [schedule for schedule in schedules if isinstance(schedule, OneCycleSchedule)]
    first = one_cycle[0]
    if first.convention != "torch" or any(_shape(each) != _shape(first) for each in one_cycle):
        raise ValueError(
            f"schedule={first!r}: torch's OneCycleLR has convention='torch' only, with the same total_steps, "
            "pct_start, anneal_strategy, three_phase and cycle_momentum in all groups"
        )
    if position >= first.total_steps:
        raise ValueError(f"applied_steps={position} must be below total_steps={first.total_steps}: torch's has ended")
    for group, each in zip(sgd.param_groups, one_cycle, strict=True):
        group.update(initial_lr=each.initial_lr, max_lr=each.max_lr, min_lr=each.final_lr)
        if each.cycle_momentum:
            group.update(base_momentum=each.base_momentum, max_momentum=each.max_momentum)
    try:
        scheduler = OneCycleLR(
            sgd,
            [each.max_lr for each in one_cycle],
            total_steps=first.total_steps,
            pct_start=first._share,
            anneal_strategy=first.anneal_strategy,  # type: ignore[arg-type]  # one of torch's two
            cycle_momentum=first.cycle_momentum,
            three_phase=first.three_phase,
            last_epoch=0,  # then torch takes the rates from the groups: each may have its own divisors
        )
        scheduler.last_epoch = position - 1
        scheduler._initial_step()
    except ZeroDivisionError:
        raise ValueError(f"schedule={first!r}: torch's OneCycleLR divides by the length of a phase, 0") from None
    return scheduler


def _shape(schedule: OneCycleSchedule) -> list[Any]:
    return [getattr(schedule, name) for name in _SAME_FOR_TORCH]
