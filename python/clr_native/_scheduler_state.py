"""The state of CyclicLR: its own, and those of torch's CyclicLR and OneCycleLR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clr_native._groups import read_schedule
from clr_native._per_group import where
from clr_native._torch_attributes import LISTS, SINGLE
from clr_native._torch_one_cycle import TORCH_MARK as _ONE_CYCLE_MARK
from clr_native._torch_one_cycle import schedule_in
from clr_native.schedules import CyclicSchedule, Schedule
from clr_native.schedules.cyclic import MODES

# With these equal in all groups and the triangular window torch's class has the same schedule.
_SAME_FOR_TORCH = ("step_size_up", "_down", "mode", "gamma", "scale_fn", "scale_mode", "cycle_momentum")
_TORCH_MODES = ("triangular", "triangular2", "exp_range")
_TORCH_MARK = "total_size"


def written_for_torch(schedules: Sequence[Schedule]) -> dict[str, Any]:
    """The keys from which torch's CyclicLR goes on with the same values; none where it has no such schedule.

    Without them torch's ``load_state_dict`` raises KeyError. Where there is a scale_fn, one without raises too.
    """
    cyclic = [each for each in schedules if isinstance(each, CyclicSchedule)]
    if not cyclic or len(cyclic) != len(schedules) or not all(_torch_has(each, cyclic[0]) for each in cyclic):
        return {}
    first = cyclic[0]
    state: dict[str, Any] = {name: read(first) for name, read in SINGLE.items() if name != "scale_fn"}
    names = ("base_lrs", "max_lrs", *(("base_momentums", "max_momentums") if first.cycle_momentum else ()))
    return {
        **state,
        **{name: [LISTS[name][1](each) for each in cyclic] for name in names},
        "_scale_fn_custom": None if first.scale_fn is None else {},
        "_get_lr_called_within_step": False,
    }


def _torch_has(schedule: CyclicSchedule, first: CyclicSchedule) -> bool:
    return (
        schedule.window == "triangular"
        and not schedule.decay_base
        and schedule.mode in _TORCH_MODES
        and all(getattr(schedule, name) == getattr(first, name) for name in _SAME_FOR_TORCH)
    )


def saved_schedules(
    state: Mapping[str, Any], present: Sequence[Schedule | None], groups: Sequence[Mapping[str, Any]]
) -> list[Schedule]:
    """The schedules in a state of ours, or of torch's CyclicLR or OneCycleLR, which leaves the rates in the groups.

    A scale_fn is that of the present ones.
    """
    if "schedules" in state:
        count = len(state["schedules"])
    elif _TORCH_MARK in state or _ONE_CYCLE_MARK in state:
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
            raise type(error)(f"{where(index)}{error}") from None
        except LookupError as error:
            raise ValueError(f"{where(index)}state_dict is not complete: {error!r}") from None
        # One object for equal neighbours: its value is computed once.
        schedules.append(next((each for each in (known, *schedules[-1:]) if each == schedule), schedule) or schedule)
    return schedules


def _saved(state: Mapping[str, Any], index: int, known: Schedule | None, group: Mapping[str, Any]) -> Schedule:
    if "schedules" in state:
        return read_schedule({"schedule": state["schedules"][index]}, known)
    return schedule_in(state, group) if _ONE_CYCLE_MARK in state else _of_torch(state, index, known)


def _of_torch(state: Mapping[str, Any], index: int, known: Schedule | None) -> CyclicSchedule:
    total, ratio = state["total_size"], state["step_ratio"]
    up = round(total * ratio)
    down = round(total) - up
    if min(up, down) < 1 or float(up + down) != total or up / total != ratio:
        raise ValueError(f"total_size={total!r} and step_ratio={ratio!r} must be of whole numbers of steps")
    function = next(iter(known._functions() if known else ()), None)
    attributes = state.get("_scale_fn_custom")
    if attributes is not None and function is None:
        raise ValueError("scale_fn=None: this state was saved without its scale_fn, pass it to the constructor")
    if attributes and vars(function) != attributes:
        raise ValueError(f"scale_fn={function!r} must be given the attributes with which it was saved: {attributes!r}")
    cycles = bool(state["cycle_momentum"])
    momenta: dict[str, Any] = {
        f"{end}_momentum": float(state[f"{end}_momentums"][index]) for end in ("base", "max") if cycles
    }
    mode = state["mode"]
    return CyclicSchedule(
        float(state["base_lrs"][index]),
        float(state["max_lrs"][index]),
        step_size_up=up,
        step_size_down=None if down == up else down,
        mode="triangular" if function is not None and mode not in MODES else mode,
        gamma=state["gamma"],
        scale_fn=function,
        scale_mode="cycle" if function is None else state["scale_mode"],  # torch's follows the mode then
        cycle_momentum=cycles,
        **momenta,
    )
