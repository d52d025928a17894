"""Takes over a live torch.optim.SGD with its CyclicLR or OneCycleLR, and gives such a pair back."""

from __future__ import annotations

import copy
import types
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from clr_native.checks import group_label
from clr_native.schedules import CyclicSchedule, OneCycleSchedule, Schedule
from clr_native.schedules.arguments import SCHEDULE_FIELDS
from clr_native.schedules.saved import saved_schedules
from clr_native.schedules.torch_cyclic_lr import torch_cyclic_lr_state
from clr_native.schedules.torch_one_cycle_lr import one_cycle_lr
from clr_native.sgd.checkpoint import COUNTERS
from clr_native.sgd.gradient_options import GradientOptions
from clr_native.sgd.settings import SETTINGS, TORCH_IMPLEMENTATION_KEYS, dtype_name
from clr_native.torch_groups import equals_stored

Group = dict[str, Any]
Scheduler: TypeAlias = CyclicLR | OneCycleLR
Pair: TypeAlias = tuple[torch.optim.SGD, Scheduler]

# Keys that SGD and the schedulers keep in a group for themselves.
_TORCH_ONLY = ("lr", "initial_lr", *TORCH_IMPLEMENTATION_KEYS)
_OURS_ONLY = ("schedule", "overridden", *COUNTERS, *(name for name in SETTINGS if not SETTINGS[name].in_torch))
# Settings that torch's SGD does not have.
_FEATURES = {name: setting for name, setting in SETTINGS.items() if setting.by_itself and not setting.in_torch}


def groups_from_torch_pair(sgd: torch.optim.SGD, scheduler: Scheduler) -> list[Group]:
    """Returns the parameter groups of a pair, as ``FusedCyclicSGD`` takes them, at the pair's position."""
    _check_pair(sgd, scheduler)
    function = getattr(scheduler, "_scale_fn_custom", None)
    known = None if function is None else CyclicSchedule(0.0, 0.0, scale_fn=function)
    schedules = saved_schedules(scheduler.state_dict(), [known] * len(sgd.param_groups), sgd.param_groups)
    _check_values(sgd.param_groups, scheduler)
    torch_only = (*_TORCH_ONLY, *(("min_lr",) if isinstance(scheduler, OneCycleLR) else ()))
    groups = []
    for group, schedule in zip(sgd.param_groups, schedules, strict=True):
        dropped = {*torch_only, *SCHEDULE_FIELDS, *(("momentum",) if schedule._begins_with_momentum else ())}
        kept = {name: value for name, value in group.items() if name not in dropped}
        # torch's pair does not use an lr_scale, which another library may have left in a group.
        groups.append({**kept, "schedule": schedule, "applied_steps": scheduler.last_epoch, "lr_scale": 1.0})
    return groups


def _check_pair(sgd: object, scheduler: object) -> None:
    if not isinstance(sgd, torch.optim.SGD):
        raise TypeError(f"sgd of type={type(sgd).__name__} must be a torch.optim.SGD")
    kind = next((each for each in (CyclicLR, OneCycleLR) if isinstance(scheduler, each)), None)
    name = type(scheduler).__name__
    if kind is None:
        raise TypeError(f"scheduler of type={name} must be a torch.optim.lr_scheduler.CyclicLR or OneCycleLR")
    assert isinstance(scheduler, kind)
    if getattr(scheduler.get_lr, "__func__", None) is not kind.get_lr:
        raise TypeError(
            f"scheduler of type={name} has a get_lr() of its own, which a schedule cannot say: keep the pair"
        )
    if scheduler.optimizer is not sgd:
        raise ValueError("scheduler must be the scheduler of this sgd, and not of another optimizer")


def _check_values(groups: Sequence[Group], scheduler: Scheduler) -> None:
    """Refuses values that the scheduler has not written: torch's schedule advances after them, ours would not."""
    twin, written = copy.copy(scheduler), [dict(group) for group in groups]
    twin.optimizer = types.SimpleNamespace(param_groups=written)  # type: ignore[assignment]  # all that get_lr() reads
    twin._get_lr_called_within_step = True  # without it get_lr() warns
    epoch = scheduler.last_epoch
    try:
        rates = twin.get_lr()
    except (ArithmeticError, ValueError) as error:  # the scheduler's step() counts before it fails
        raise ValueError(
            f"last_epoch={epoch}: the {type(scheduler).__name__} has no value there ({error}): "
            f"set last_epoch={epoch - 1}, where it stood"
        ) from None
    for index, (group, lr, other) in enumerate(zip(groups, rates, written, strict=True)):
        for name, value in (("lr", float(lr)), ("momentum", float(other["momentum"]))):
            if not equals_stored(group[name], value):
                raise ValueError(
                    f"{group_label(index)}{name}={group[name]!r} is not the scheduler's value at last_epoch={epoch}: "
                    f"put {value!r} there, or take the pair over after the next scheduler.step()"
                )


def to_torch_pair(
    groups: Sequence[Group],
    standing: Sequence[tuple[Schedule, bool, Any, Any]],
    state: Mapping[torch.Tensor, Group],
    options: GradientOptions,
) -> Pair:
    """Returns a torch pair that goes on at the position of these groups, with the same buffers.

    ``standing``: of each group its schedule, and whether lr or momentum is set by hand.
    """
    _refuse_what_torch_has_not(groups, options)
    _refuse_set_by_hand(groups, standing)
    schedules = [schedule for schedule, *_ in standing]
    positions = {group["applied_steps"] for group in groups}
    if len(positions) != 1:
        raise ValueError(f"applied_steps={sorted(positions)} must be the same in all groups: torch counts once for all")
    sgd = torch.optim.SGD([_torch_group(group) for group in groups], lr=0.0)
    for parameter, entry in state.items():
        sgd.state[parameter] = dict(entry)
    is_one_cycle = all(isinstance(schedule, OneCycleSchedule) for schedule in schedules)
    return sgd, (one_cycle_lr if is_one_cycle else _cyclic_lr)(sgd, schedules, positions.pop())


def _cyclic_lr(sgd: torch.optim.SGD, schedules: Sequence[Schedule], position: int) -> CyclicLR:
    """Returns torch's scheduler of these schedules, at a position in them."""
    if not torch_cyclic_lr_state(schedules):
        raise ValueError(
            f"schedule={schedules[0]!r}: torch's CyclicLR has triangular windows only, in the modes triangular, "
            "triangular2 and exp_range, with the same sizes and mode in all groups"
        )
    cyclic = [schedule for schedule in schedules if isinstance(schedule, CyclicSchedule)]  # all of them
    for group, schedule in zip(sgd.param_groups, cyclic, strict=True):
        group["initial_lr"] = schedule.base_lr  # torch requires it for a position
    first = cyclic[0]
    return CyclicLR(
        sgd,
        [each.base_lr for each in cyclic],
        [each.max_lr for each in cyclic],
        step_size_up=first.step_size_up,
        step_size_down=first.step_size_down,
        mode=first.mode,  # type: ignore[arg-type]  # torch_cyclic_lr_state() has checked that it is torch's
        gamma=first.gamma,
        scale_fn=first.scale_fn,  # type: ignore[arg-type]  # of an int, where torch says float
        scale_mode=first.scale_mode,  # type: ignore[arg-type]  # one of torch's two
        cycle_momentum=first.cycle_momentum,
        base_momentum=[each.base_momentum for each in cyclic],  # type: ignore[arg-type]  # torch takes lists
        max_momentum=[each.max_momentum for each in cyclic],  # type: ignore[arg-type]  # as above
        last_epoch=position - 1,
    )


def _refuse_set_by_hand(groups: Sequence[Group], standing: Sequence[tuple[Schedule, bool, Any, Any]]) -> None:
    """Refuses values for one update that does not advance our schedule: torch's would advance after it."""
    for index, (group, (schedule, is_overridden, lr, momentum)) in enumerate(zip(groups, standing, strict=True)):
        if not is_overridden or schedule._native.is_constant:
            continue
        position = group["applied_steps"]
        scheduled = schedule(position)
        values = {"lr": (lr, scheduled.lr), "momentum": (momentum, scheduled.momentum)}
        name = next(name for name, (value, own) in values.items() if value is not None and float(value) != own)
        raise ValueError(
            f"{group_label(index)}{name}={values[name][0]!r} is set by hand, and not the schedule's value at "
            f"applied_steps={position}: put {values[name][1]!r} there, or take that step first"
        )


def _torch_group(group: Group) -> Group:
    return {name: value for name, value in group.items() if name not in _OURS_ONLY}


def _refuse_what_torch_has_not(groups: Sequence[Group], options: GradientOptions) -> None:
    for name, setting in _FEATURES.items():
        for index, group in enumerate(groups if setting.of_group else [vars(options)]):
            if group[name] == setting.default:
                continue
            where = group_label(index) if setting.of_group else ""
            afterwards = "" if setting.of_group else ", and do it in the training loop"
            raise ValueError(
                f"{where}{name}={group[name]!r}: torch.optim.SGD does not do that: set it to {setting.default!r} "
                f"first{afterwards}"
            )
    for index, group in enumerate(groups):
        dtype = group["momentum_dtype"]
        if dtype is not None and any(dtype_name(parameter.dtype) != dtype for parameter in group["params"]):
            raise ValueError(
                f"{group_label(index)}momentum_dtype={dtype!r}: torch.optim.SGD keeps buffers of the parameter's "
                "dtype: set it to None first, and optimizer.load_state_dict(optimizer.state_dict()) converts them"
            )
