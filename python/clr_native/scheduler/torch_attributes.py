"""The public attributes of torch's CyclicLR, computed from the schedules of ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from clr_native.checks import group_label
from clr_native.schedules import Schedule
from clr_native.schedules.torch_cyclic_lr import LISTS, SINGLE


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
            if name == "base_lrs":  # torch's constructor stores the initial_lr of the groups there.
                return
            raise _refuse(name)
        get(scheduler)  # AttributeError if there are none
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
            raise type(error)(f"{group_label(index)}{error}") from None
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
        """True once the scheduler's own constructor has finished. The scheduler defines it."""
        raise NotImplementedError

    def _change_schedules(self, schedules: list[Schedule]) -> None:
        """Follows other schedules from the present position on. The scheduler defines it."""
        raise NotImplementedError
