"""What the constructor and a parameter group say about the schedule, and what parameters can be updated."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from clr_native.schedules import CyclicSchedule, Schedule
from clr_native.schedules._base import Functions, made_from

SCHEDULE_FIELDS = {field.name: field.default for field in dataclasses.fields(CyclicSchedule)}
# What a group says besides its schedule, with the defaults of the constructor.
SETTINGS = {
    "dampening": 0.0,
    "weight_decay": 0.0,
    "nesterov": False,
    "maximize": False,
    "ema_decay": None,
    "ema_warmup": False,
    "average": None,
    "trust_coefficient": None,
    "trust_eps": 1e-8,
    "trust_min_ndim": 2,
    "momentum_dtype": None,
    "rounding": "nearest",
    "seed": 0,
    "kahan": False,
    "master_weights": False,
}
BOUNDS = ("base_lr", "max_lr")
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclasses.dataclass(frozen=True)
class ScheduleArguments:
    """The constructor's arguments, which a group's own replace for that group."""

    flat: dict[str, Any]  # those that were given
    schedule: Schedule | None  # the schedule argument, or the one that the flat ones say
    momentum: float | None

    @classmethod
    def of(cls, arguments: dict[str, Any], schedule: Schedule | None, momentum: float | None) -> ScheduleArguments:
        flat = {name: value for name, value in arguments.items() if not is_default(name, value)}
        if schedule is not None:
            check_schedule(schedule, flat, "")
        elif all(name in flat for name in BOUNDS):
            schedule = CyclicSchedule(**flat)
        if momentum is not None and (schedule._begins_with_momentum if schedule else arguments["cycle_momentum"]):
            raise ValueError(_idle_momentum("", momentum))
        return cls(flat, schedule, momentum)

    def take_from(self, group: dict[str, Any], where: str) -> tuple[Schedule, float]:
        """Takes these arguments out of a new group: its schedule, and its momentum where that has none."""
        flat = {name: group.pop(name) for name in SCHEDULE_FIELDS if name in group}
        own = group.pop("schedule", None)
        momentum = group.pop("momentum", None)
        if own is not None:
            check_schedule(own, flat, where)
            schedule = own
        elif self.schedule is not None and not flat:
            schedule = self.schedule
        else:
            schedule = flat_schedule({**self.flat, **flat}, where)
        if schedule._begins_with_momentum and momentum is not None:
            raise ValueError(_idle_momentum(where, momentum))
        if momentum is None and not schedule._begins_with_momentum:
            momentum = self.momentum
        return schedule, 0.9 if momentum is None else momentum


def is_default(name: str, value: object) -> bool:
    default = None if name in BOUNDS else SCHEDULE_FIELDS[name]
    return type(value) is type(default) and value == default


def _idle_momentum(where: str, momentum: object) -> str:
    return (
        f"{where}momentum={momentum!r} is for a schedule that begins without one, as with cycle_momentum=False: "
        "set base_momentum and max_momentum, or cycle_momentum=False"
    )


def check_schedule(schedule: object, flat: dict[str, Any], where: str) -> None:
    if not isinstance(schedule, Schedule):
        raise TypeError(f"{where}schedule={schedule!r} must be a schedule such as CyclicSchedule(...)")
    if flat:
        name = min(flat)
        raise ValueError(f"{where}{name}={flat[name]!r} cannot be combined with schedule=: set it in the schedule")


def flat_schedule(flat: dict[str, Any], where: str) -> CyclicSchedule:
    missing = " and ".join(f"{name}=None" for name in BOUNDS if flat.get(name) is None)
    if missing:
        raise ValueError(
            f"{where}{missing}: give both bounds to the constructor, both to every group, or say schedule="
        )
    return CyclicSchedule(**flat)


def read_schedule(group: dict[str, Any], known: Schedule | None) -> Schedule:
    """The schedule that stands in a group, with the known one's scale_fn if it needs one."""
    written = group["schedule"]
    if isinstance(written, Schedule):
        return written
    if not isinstance(written, Mapping):
        raise TypeError(f"schedule={written!r} in a parameter group must be a schedule or its to_dict()")
    functions = known._functions() if known else []
    # One serves wherever it is needed, as in the schedule that is known.
    return made_from(written, Functions(functions[0] if len(functions) == 1 else functions))


def dtype_name(dtype: object) -> object:
    """As it stands in a group: plain data."""
    return str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype


def check_parameter(parameter: torch.Tensor, name: str) -> None:
    """What would be refused at every step is refused at once."""
    if any(cls.__name__ == "DTensor" for cls in type(parameter).__mro__):
        raise TypeError(f"{name}: type=DTensor is not supported yet: use torch.optim.SGD for sharded parameters")
    if parameter.dtype not in _DTYPES:
        raise TypeError(f"{name}: dtype={parameter.dtype} must be float32, float64, bfloat16 or float16")
