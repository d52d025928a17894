"""Reads the schedules in the state of a scheduler: our CyclicLR, or torch's CyclicLR or OneCycleLR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clr_native.checks import group_label
from clr_native.schedules import torch_cyclic_lr, torch_one_cycle_lr
from clr_native.schedules.arguments import read_schedule
from clr_native.schedules.base import Schedule


def saved_schedules(
    state: Mapping[str, Any], present: Sequence[Schedule | None], groups: Sequence[Mapping[str, Any]]
) -> list[Schedule]:
    """Returns the schedules in a state of ours, or of torch's CyclicLR or OneCycleLR (with the rates in the groups).

    A schedule that needs a scale_fn gets that of the present schedule.
    """
    if "schedules" in state:
        count = len(state["schedules"])
    elif torch_cyclic_lr.TORCH_MARK in state or torch_one_cycle_lr.TORCH_MARK in state:
        count = len(state.get("base_lrs", ()))
    else:
        raise ValueError("state_dict has neither schedules nor torch's total_size: it is not of a CyclicLR")
    if count != len(present):
        raise ValueError(f"state_dict is of {count} parameter groups, the optimizer has {len(present)}")
    schedules: list[Schedule] = []
    for index, (known, group) in enumerate(zip(present, groups, strict=True)):
        try:
            schedule = _saved(state, index, known, group)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{group_label(index)}{error}") from None
        except LookupError as error:
            raise ValueError(f"{group_label(index)}state_dict is not complete: {error!r}") from None
        # Equal neighbours share one object, so that its value is computed once.
        schedules.append(next((each for each in (known, *schedules[-1:]) if each == schedule), schedule) or schedule)
    return schedules


def _saved(state: Mapping[str, Any], index: int, known: Schedule | None, group: Mapping[str, Any]) -> Schedule:
    if "schedules" in state:
        return read_schedule({"schedule": state["schedules"][index]}, known)
    if torch_one_cycle_lr.TORCH_MARK in state:
        return torch_one_cycle_lr.schedule_in(state, group)
    return torch_cyclic_lr.schedule_in(state, index, known)
