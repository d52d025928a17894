"""torch's CyclicLR: its attributes and its state, read from schedules of ours, and the schedule that a state says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clr_native.schedules.base import Schedule
from clr_native.schedules.cyclic import MODES, CyclicSchedule

# If these are equal in all groups and the window is triangular, torch's class has the same schedule.
_SAME_FOR_TORCH = ("step_size_up", "_down", "mode", "gamma", "scale_fn", "scale_mode", "cycle_momentum")
_TORCH_MODES = ("triangular", "triangular2", "exp_range")
TORCH_MARK = "total_size"
# Reads an attribute that torch has once from a schedule of ours. AttributeError: the schedule has no such value.
SINGLE: dict[str, Callable[[Any], Any]] = {
    "mode": lambda schedule: schedule.mode,
    "gamma": lambda schedule: schedule.gamma,
    "scale_fn": lambda schedule: Scale.of(schedule) if schedule.scale_fn is None else schedule.scale_fn,
    "scale_mode": lambda schedule: Scale.of(schedule).counts if schedule.scale_fn is None else schedule.scale_mode,
    "total_size": lambda schedule: float(schedule.cycle_length),
    "step_ratio": lambda schedule: schedule.step_size_up / float(schedule.cycle_length),
    "cycle_momentum": lambda schedule: schedule.cycle_momentum,
}
# For an attribute that torch has for each group: the argument of our schedule, and how the attribute is read.
LISTS: dict[str, tuple[str, Callable[[Any], float]]] = {
    "base_lrs": ("base_lr", lambda schedule: schedule(0).lr),
    "max_lrs": ("max_lr", lambda schedule: schedule.max_lr),
    "base_momentums": ("base_momentum", lambda schedule: _with_momentum(schedule).base_momentum),
    "max_momentums": ("max_momentum", lambda schedule: _with_momentum(schedule).max_momentum),
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """The amplitude of a mode, as torch's ``scale_fn(x)``."""

    unit: CyclicSchedule  # Its learning rate is the amplitude, at every step.

    @classmethod
    def of(cls, schedule: CyclicSchedule) -> Scale:
        mode = {name: getattr(schedule, name) for name in ("mode", "gamma", "decay_steps")}
        return cls(CyclicSchedule(1.0, 1.0, step_size_up=1, decay_base=True, cycle_momentum=False, **mode))

    @property
    def counts(self) -> str:
        return "iterations" if self.unit.mode in ("exp_range", "linear_range") else "cycle"

    def __call__(self, x: float) -> float:
        first = 1 if self.counts == "cycle" else 0
        if not (x >= first and x == int(x)):
            raise ValueError(f"x={x!r} must be a whole number from {first}: {self.unit.mode} scales by {self.counts}")
        return self.unit((int(x) - first) * (self.unit.cycle_length if first else 1)).lr


def _with_momentum(schedule: Any) -> Any:
    if not schedule.cycle_momentum:
        raise AttributeError
    return schedule


def torch_cyclic_lr_state(schedules: Sequence[Schedule]) -> dict[str, Any]:
    """Returns the keys from which torch's CyclicLR goes on with the same values; none if it has no such schedule.

    Without these keys torch's ``load_state_dict`` raises KeyError. If a schedule has a scale_fn and torch's scheduler
    has none, that raises too.
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


def schedule_in(state: Mapping[str, Any], index: int, known: Schedule | None) -> CyclicSchedule:
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
        scale_mode="cycle" if function is None else state["scale_mode"],  # without one, torch derives it from the mode
        cycle_momentum=cycles,
        **momenta,
    )
