"""The text of an optimizer or a scheduler: a line for each parameter group. Equal neighbours share a line."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch.nn.parameter import is_lazy

from clr_native.schedules import Schedule
from clr_native.sgd.gradient_options import GradientOptions
from clr_native.sgd.settings import GLOBAL_DEFAULTS, GROUP_DEFAULTS, as_number

Group = dict[str, Any]

# A thousand groups that all differ would fill the screen: so many lines tell what they are.
_MOST_LINES = 16

_shorten = reprlib.Repr()
_shorten.maxother = 100  # of a sequence of schedules; and an object whose repr fails is shown all the same


class ShownGroup(NamedTuple):
    """The text of one group without its number, and its parameters where their number is of use."""

    what: str
    parameters: Sequence[torch.Tensor] | None = None


def shown(title: str, groups: Iterable[ShownGroup]) -> str:
    """Returns the title, with the groups beneath it."""
    lines, first = [title], 0
    for what, alike in groupby(groups, key=lambda group: group.what):
        some = list(alike)
        last = first + len(some) - 1
        name = f"group {first}" if first == last else f"groups {first} to {last}"
        lines.append(f"  {name}: {what}{_size(some)}")
        first = last + 1
    left_out = len(lines) - _MOST_LINES
    if left_out > 0:
        lines[_MOST_LINES - 2 : -1] = [f"  ... {left_out + 1} more lines"]
    return "\n".join(lines)


def _size(groups: Iterable[ShownGroup]) -> str:
    parameters = [each for group in groups for each in group.parameters or ()]
    if not parameters:
        return ""
    tensors = f"; {len(parameters):,} tensor{'s' * (len(parameters) != 1)}"
    if any(map(is_lazy, parameters)):  # which have no size yet
        return tensors
    elements = sum(each.numel() for each in parameters)
    return f"{tensors}, {elements:,} element{'s' * (elements != 1)}"


def shown_optimizer(
    name: str, groups: Sequence[Group], options: GradientOptions, schedule_of: Callable[[Group], Schedule]
) -> str:
    """Returns the text of an optimizer: the position of its first group, and the settings that are not the default."""
    first: Group = groups[0] if groups else {}
    clipping = {name: value for name, value in vars(options).items() if value != GLOBAL_DEFAULTS[name]}
    position = {"applied_steps": first.get("applied_steps", 0), "skipped_steps": first.get("skipped_steps", 0)}
    if not position["skipped_steps"]:
        del position["skipped_steps"]
    return shown(
        f"{name}({_settings({**position, **clipping})})", [_group(group, position, schedule_of) for group in groups]
    )


def _group(group: Group, position: Mapping[str, Any], schedule_of: Callable[[Group], Schedule]) -> ShownGroup:
    schedule = group.get("schedule")
    with contextlib.suppress(TypeError, ValueError):  # what stands there may be refused by the next step
        schedule = schedule_of(group)
    settings = {name: as_number(group.get(name, default)) for name, default in GROUP_DEFAULTS.items()}
    own = {name: value for name, value in settings.items() if value != GROUP_DEFAULTS[name]}
    own |= {name: group.get(name) for name, value in position.items() if group.get(name) != value}
    what = shown_values(schedule, group.get("lr"), group.get("momentum"))
    return ShownGroup(", ".join(each for each in (what, _settings(own)) if each), group["params"])


def shown_values(schedule: object, lr: object, momentum: object) -> str:
    """Returns the values that are used next, with the schedule unless it is constant."""
    values = {"lr": lr} if momentum is None else {"lr": lr, "momentum": momentum}
    is_constant = isinstance(schedule, Schedule) and schedule._native.is_constant
    return _settings(values) if is_constant else f"{_shorten.repr(schedule)}, {_settings(values)}"


def _settings(settings: Mapping[str, object]) -> str:
    """Returns ``name=value`` of each, with six digits, which tell one rate from another."""
    plain = {name: as_number(value) for name, value in settings.items()}
    return ", ".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={_shorten.repr(value)}"
        for name, value in plain.items()
    )
