"""The public attributes of torch's CyclicLR, computed from the schedules of ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from clr_native.schedules import CyclicSchedule, Schedule

# How an attribute that torch has once is read from a schedule of ours; AttributeError: the schedule has no such value.
SINGLE: dict[str, Callable[[Any], Any]] = {
    "mode": lambda schedule: schedule.mode,
    "gamma": lambda schedule: schedule.gamma,
    "scale_fn": lambda schedule: Scale.of(schedule) if schedule.scale_fn is None else schedule.scale_fn,
    "scale_mode": lambda schedule: Scale.of(schedule).counts if schedule.scale_fn is None else schedule.scale_mode,
    "total_size": lambda schedule: float(schedule.cycle_length),
    "step_ratio": lambda schedule: schedule.step_size_up / float(schedule.cycle_length),
    "cycle_momentum": lambda schedule: schedule.cycle_momentum,
}
# How one that torch has for each group is read, and the argument of the schedule that it is.
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


def _missing(name: str, schedule: Schedule, index: int) -> AttributeError:
    return AttributeError(
        f"CyclicLR has no {name}, as the {type(schedule).__name__} of parameter group {index} has none: "
        f"read schedules[{index}] instead"
    )


def _of_group(name: str, read: Callable[[Any], Any], schedule: Schedule, index: int) -> Any:
    try:
        return read(schedule)
    except AttributeError:
        raise _missing(name, schedule, index) from None


def _of_groups(name: str, read: Callable[[Any], Any], schedules: Sequence[Schedule]) -> list[Any]:
    return [_of_group(name, read, schedule, index) for index, schedule in enumerate(schedules)]


def _the_same(name: str, values: Sequence[Any]) -> Any:
    for index, value in enumerate(values):
        if value != values[0]:
            raise AttributeError(
                f"CyclicLR has no single {name}: it is {values[0]!r} in parameter group 0 and {value!r} in {index}: "
                "read schedules instead"
            )
    return values[0]


def _refuse(name: str) -> AttributeError:
    return AttributeError(f"{name} is what the schedules say: set schedules instead")


def _single(name: str) -> Any:
    def get(scheduler: TorchAttributes) -> Any:
        return _the_same(name, _of_groups(name, SINGLE[name], scheduler._schedules))

    return _read_only(name, get)


def _read_only(name: str, get: Callable[[Any], Any]) -> Any:
    def set_(scheduler: TorchAttributes, value: object) -> None:
        raise _refuse(name)

    return property(get, set_, doc=f"As torch's; AttributeError where the schedules have no single {name}.")


def _one_each(name: str) -> Any:
    argument, read = LISTS[name]

    def get(scheduler: TorchAttributes) -> list[float]:
        return _of_groups(name, read, scheduler._schedules)

    def set_(scheduler: TorchAttributes, values: object) -> None:
        if not scheduler._is_constructed():
            if name == "base_lrs":  # torch's constructor notes the initial_lr of the groups there.
                return
            raise _refuse(name)
        get(scheduler)  # AttributeError where there are none
        scheduler._change_schedules(_with_bounds(name, argument, values, scheduler._schedules))

    return property(get, set_, doc=f"As torch's: the {argument} of each group. May be set: step() goes on with these.")


def _with_bounds(name: str, argument: str, values: object, schedules: Sequence[Schedule]) -> list[Schedule]:
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"{name}={values!r} must be a list, one entry for each parameter group")
    if not all(hasattr(schedule, argument) for schedule in schedules):
        raise _refuse(name)
    if len(values) != len(schedules):
        raise ValueError(f"{name} with {len(values)} entries must have one for each of the {len(schedules)} groups")
    made: list[Schedule] = []
    for index, (schedule, value) in enumerate(zip(schedules, values, strict=True)):
        try:
            changed: Schedule = dataclasses.replace(schedule, **{argument: value})  # type: ignore[type-var]  # all are
        except (TypeError, ValueError) as error:
            raise type(error)(f"parameter group {index}: {error}") from None
        made.append(made[-1] if made and made[-1] == changed else changed)
    return made


def _use_beta1(scheduler: TorchAttributes) -> Any:
    keys = scheduler._momentum_keys
    if None in keys:
        raise _missing("use_beta1", scheduler._schedules[keys.index(None)], keys.index(None))
    return _the_same("use_beta1", [key == "betas" for key in keys])


class TorchAttributes:
    """The public attributes of torch's CyclicLR, where the schedules have such values; else AttributeError."""

    _schedules: list[Schedule]
    _momentum_keys: list[str | None]

    base_lrs = _one_each("base_lrs")
    max_lrs = _one_each("max_lrs")
    base_momentums = _one_each("base_momentums")
    max_momentums = _one_each("max_momentums")
    mode = _single("mode")
    gamma = _single("gamma")
    scale_fn = _single("scale_fn")
    scale_mode = _single("scale_mode")
    total_size = _single("total_size")
    step_ratio = _single("step_ratio")
    cycle_momentum = _single("cycle_momentum")
    use_beta1 = _read_only("use_beta1", _use_beta1)

    def _check_overridden(self) -> None:
        kind = type(self)
        for name in (*SINGLE, *LISTS, "use_beta1"):
            if getattr(kind, name) is not getattr(TorchAttributes, name):
                raise TypeError(
                    f"{kind.__name__}.{name} would not be read: say it by the arguments of CyclicLR, or in get_lr()"
                )

    def _is_constructed(self) -> bool:
        """True once the scheduler's own constructor is through. The scheduler defines it."""
        raise NotImplementedError

    def _change_schedules(self, schedules: list[Schedule]) -> None:
        """Follows other schedules from the present position on. The scheduler defines it."""
        raise NotImplementedError
