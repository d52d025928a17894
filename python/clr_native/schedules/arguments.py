"""A schedule as arguments: of a constructor, of a parameter group, or of a state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from clr_native.schedules.base import Schedule, schedule_from_dict
from clr_native.schedules.cyclic import CyclicSchedule
from clr_native.schedules.scale_functions import ScaleFunctions

SCHEDULE_FIELDS = {field.name: field.default for field in dataclasses.fields(CyclicSchedule)}
BOUNDS = ("base_lr", "max_lr")
_BESIDE_LR = frozenset({"cycle_momentum"})  # may be given with lr alone


@dataclasses.dataclass(frozen=True)
class ScheduleArguments:
    """The constructor's arguments. A group's own arguments replace them for that group."""

    flat: dict[str, Any]  # the schedule arguments that were given
    schedule: Schedule | None  # the schedule argument, or the schedule of the flat arguments or of lr
    momentum: float | None
    rate: float | None = None  # lr, if lr alone gives the schedule

    @classmethod
    def of(
        cls, arguments: dict[str, Any], schedule: Schedule | None, momentum: float | None, lr: float | None
    ) -> ScheduleArguments:
        flat = {name: value for name, value in arguments.items() if not is_default(name, value)}
        if schedule is not None:
            check_schedule(schedule, flat, "")
        elif all(name in flat for name in BOUNDS):
            schedule = CyclicSchedule(**flat)
        elif lr is not None and flat.keys() <= _BESIDE_LR:
            return cls({}, constant_schedule(lr, ""), momentum, lr)
        if momentum is not None and (schedule._begins_with_momentum if schedule else arguments["cycle_momentum"]):
            raise ValueError(_idle_momentum("", momentum))
        return cls(flat, schedule, momentum)

    def take_from(self, group: dict[str, Any], where: str) -> tuple[Schedule, float, bool]:
        """Removes these arguments from a new group.

        Returns its schedule, the momentum if the schedule has none, and True if ``lr`` alone gives the schedule.
        """
        flat = {name: group.pop(name) for name in SCHEDULE_FIELDS if name in group}
        own, momentum, lr = (group.pop(name, None) for name in ("schedule", "momentum", "lr"))
        is_rate = own is None and self._is_rate(flat, lr)
        schedule = self._rate_of(lr, where) if is_rate else self._of_group(own, flat, where)
        if schedule._begins_with_momentum and momentum is not None and not isinstance(own, Mapping):
            raise ValueError(_idle_momentum(where, momentum))
        if momentum is None and not schedule._begins_with_momentum:
            momentum = self.momentum
        return schedule, 0.9 if momentum is None else momentum, is_rate

    def _is_rate(self, flat: dict[str, Any], lr: float | None) -> bool:
        """True if lr alone, the group's or the constructor's, gives a group with these arguments its schedule."""
        if self.rate is None and (self.schedule is not None or lr is None):
            return False
        return {**self.flat, **flat}.keys() <= _BESIDE_LR

    def _rate_of(self, lr: float | None, where: str) -> Schedule:
        return self.schedule if lr is None and self.schedule is not None else constant_schedule(lr, where)

    def _of_group(self, own: object, flat: dict[str, Any], where: str) -> Schedule:
        if isinstance(own, Mapping):  # from another optimizer's group, which also holds lr and momentum
            own = _made(own, self.schedule._functions() if self.schedule else _functions_in(self.flat))
        if own is not None:
            return check_schedule(own, flat, where)
        if self.schedule is not None and not flat:
            return self.schedule
        return flat_schedule({**self.flat, **flat}, where)


def _functions_in(flat: dict[str, Any]) -> list[Any]:
    return [flat["scale_fn"]] if "scale_fn" in flat else []


def constant_schedule(lr: float | None, where: str) -> CyclicSchedule:
    """Returns the schedule of an optimizer that is given ``lr`` alone, as torch's SGD is."""
    try:
        return CyclicSchedule(lr, lr, cycle_momentum=False)  # type: ignore[arg-type]  # it refuses what is no number
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}lr={lr!r} must be a finite number, not negative") from None


def is_default(name: str, value: object) -> bool:
    default = None if name in BOUNDS else SCHEDULE_FIELDS[name]
    return type(value) is type(default) and value == default


def _idle_momentum(where: str, momentum: object) -> str:
    return (
        f"{where}momentum={momentum!r} is for a schedule that begins without one, as with cycle_momentum=False: "
        "set base_momentum and max_momentum, or cycle_momentum=False"
    )


def check_schedule(schedule: object, flat: dict[str, Any], where: str) -> Schedule:
    if not isinstance(schedule, Schedule):
        raise TypeError(f"{where}schedule={schedule!r} must be a schedule such as CyclicSchedule(...)")
    if flat:
        name = min(flat)
        raise ValueError(f"{where}{name}={flat[name]!r} cannot be combined with schedule=: set it in the schedule")
    return schedule


def flat_schedule(flat: dict[str, Any], where: str) -> CyclicSchedule:
    missing = " and ".join(f"{name}=None" for name in BOUNDS if flat.get(name) is None)
    if missing:
        raise ValueError(
            f"{where}{missing}: give both bounds to the constructor, both to every group, or say schedule=, "
            "or lr= for a constant rate"
        )
    return CyclicSchedule(**flat)


def read_schedule(group: dict[str, Any], known: Schedule | None) -> Schedule:
    """Returns the schedule that stands in a group. If it needs a scale_fn, it gets that of the known schedule."""
    written = group["schedule"]
    if isinstance(written, Schedule):
        return written
    if not isinstance(written, Mapping):
        raise TypeError(f"schedule={written!r} in a parameter group must be a schedule or its to_dict()")
    return _made(written, known._functions() if known else [])


def _made(written: Mapping[str, Any], functions: list[Any]) -> Schedule:
    # A single function serves wherever one is needed, as in the known schedule.
    return schedule_from_dict(written, ScaleFunctions(functions[0] if len(functions) == 1 else functions))
