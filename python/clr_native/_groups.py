"""What the constructor and a parameter group say about the schedule, and what parameters can be updated."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from clr_native.schedules import CyclicSchedule

SCHEDULE_FIELDS = {field.name: field.default for field in dataclasses.fields(CyclicSchedule)}
_BOUNDS = ("base_lr", "max_lr")
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclasses.dataclass(frozen=True)
class ScheduleArguments:
    """The constructor's arguments, which a group's own replace for that group."""

    flat: dict[str, Any]  # those that were given
    schedule: CyclicSchedule | None  # the schedule argument, or the one that the flat ones say
    momentum: float | None

    @classmethod
    def of(
        cls, arguments: dict[str, Any], schedule: CyclicSchedule | None, momentum: float | None
    ) -> ScheduleArguments:
        flat = {name: value for name, value in arguments.items() if not _is_default(name, value)}
        schedule = _made_schedule(schedule, flat, "")
        if momentum is not None and (schedule.cycle_momentum if schedule else arguments["cycle_momentum"]):
            raise ValueError(_idle_momentum("", momentum))
        return cls(flat, schedule, momentum)

    def take_from(self, group: dict[str, Any], where: str) -> tuple[CyclicSchedule, float]:
        """Takes these arguments out of a new group: its schedule, and its momentum where that has none."""
        flat = {name: group.pop(name) for name in SCHEDULE_FIELDS if name in group}
        own = group.pop("schedule", None)
        momentum = group.pop("momentum", None)
        if own is None and not flat:
            schedule = self.schedule
        else:
            schedule = _made_schedule(own, flat if own is not None else {**self.flat, **flat}, where)
        if schedule is None:
            raise ValueError(
                f"{where}base_lr=None and max_lr=None: give both to the constructor, to every group, or a schedule="
            )
        if schedule.cycle_momentum:
            if momentum is not None:
                raise ValueError(_idle_momentum(where, momentum))
            return schedule, schedule.max_momentum
        if momentum is None:
            momentum = self.momentum
        return schedule, 0.9 if momentum is None else momentum


def _is_default(name: str, value: object) -> bool:
    default = None if name in _BOUNDS else SCHEDULE_FIELDS[name]
    return type(value) is type(default) and value == default


def _idle_momentum(where: str, momentum: object) -> str:
    return (
        f"{where}momentum={momentum!r} is for cycle_momentum=False: "
        "set base_momentum and max_momentum, or cycle_momentum=False"
    )


def _made_schedule(schedule: CyclicSchedule | None, flat: dict[str, Any], where: str) -> CyclicSchedule | None:
    """The schedule, or the one that the flat arguments say; None if neither says one."""
    if schedule is not None:
        if not isinstance(schedule, CyclicSchedule):
            raise TypeError(f"{where}schedule={schedule!r} must be a schedule such as CyclicSchedule(...)")
        if flat:
            name = min(flat)
            raise ValueError(f"{where}{name}={flat[name]!r} cannot be combined with schedule=: set it in the schedule")
        return schedule
    missing = [name for name in _BOUNDS if flat.get(name) is None]
    if len(missing) == len(_BOUNDS):
        return None
    if missing:
        raise ValueError(f"{where}{missing[0]}=None must be given with the other bound of the learning rate")
    return CyclicSchedule(**flat)


def check_parameter(parameter: torch.Tensor, name: str) -> None:
    """What would be refused at every step is refused at once."""
    if any(cls.__name__ == "DTensor" for cls in type(parameter).__mro__):
        raise TypeError(f"{name}: type=DTensor is not supported yet: use torch.optim.SGD for sharded parameters")
    if parameter.dtype not in _DTYPES:
        raise TypeError(f"{name}: dtype={parameter.dtype} must be float32, float64, bfloat16 or float16")
