"""A schedule as options: one for each field of its class, with the help that its documentation has."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

from clr_native.cli.arguments import Parser
from clr_native.schedules import CyclicSchedule, OneCycleSchedule, RampSchedule, Schedule
from clr_native.schedules.cyclic import MODES, WINDOWS
from clr_native.schedules.one_cycle import ANNEAL_STRATEGIES, CONVENTIONS
from clr_native.schedules.ramp import RAMPS

# What options can say. A sequence is given in a TOML file.
KINDS: dict[str, type[Schedule]] = {"cyclic": CyclicSchedule, "one-cycle": OneCycleSchedule, "ramp": RampSchedule}
_CHOICES = {
    "mode": MODES,
    "window": WINDOWS,
    "convention": CONVENTIONS,
    "anneal_strategy": ANNEAL_STRATEGIES,
    "ramp": RAMPS,
}
# A function can only be given in Python, and the other says what it is called with.
FUNCTIONS = ("scale_fn", "scale_mode")


def fields(schedule_class: type[Schedule]) -> Iterator[dataclasses.Field[Any]]:
    """The arguments of a schedule that can be written down as text."""
    for field in dataclasses.fields(schedule_class):  # type: ignore[arg-type]  # the subclasses are dataclasses
        if field.name not in FUNCTIONS:
            yield field
    for name in schedule_class._init_only:
        yield schedule_class.__dataclass_fields__[name]  # type: ignore[attr-defined]  # as above


def add_options(parser: Parser, schedule_class: type[Schedule]) -> None:
    """An option a field; what is not given is not in the namespace either."""
    formulas, documented = _documentation(schedule_class)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = formulas
    group = parser.add_argument_group(f"arguments of {schedule_class.__name__}")
    for field in fields(schedule_class):
        if parser.get_default(field.name) is not None:  # `summary` has an option of this name, of its run
            continue
        required = field.default is dataclasses.MISSING
        explained = documented.get(field.name, "")
        if not required and field.default is not None:
            explained += f" (default {field.default})"
        settings: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            action = group.add_argument(option, action=argparse.BooleanOptionalAction, **settings)
        elif field.name in _CHOICES:  # the schedule refuses others, by name
            action = group.add_argument(option, metavar=f"{{{','.join(_CHOICES[field.name])}}}", **settings)
        else:
            action = group.add_argument(option, type=_number, required=required, metavar="X", **settings)
        # Not among the settings: BooleanOptionalAction of Python 3.10 would add that the default is ==SUPPRESS==.
        action.help = explained


def made_from_options(schedule_class: type[Schedule], arguments: argparse.Namespace) -> Schedule:
    """The schedule; TypeError or ValueError `name=value ...` from its class."""
    given = vars(arguments)
    return schedule_class(**{field.name: given[field.name] for field in fields(schedule_class) if field.name in given})


def _number(text: str) -> object:
    """An int if it can be one; what is no number stays text, which the schedule refuses by name."""
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return text


def _documentation(schedule_class: type[Schedule]) -> tuple[str, dict[str, str]]:
    """The docstring up to its `Args:`, and what those say, by argument. There is none under `python -OO`."""
    formulas, _, rest = (inspect.getdoc(schedule_class) or "").partition("\nArgs:\n")
    section, _, _ = rest.partition("\n\n")
    explained: dict[str, str] = {}
    for names, text in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE):
        plain = " ".join(text.replace("``", "").split()).rstrip(".").replace("%", "%%")
        explained |= dict.fromkeys(names.split(", "), plain)
    return formulas.replace("::\n", ":\n").replace("``", "").replace("%", "%%").rstrip(), explained
