"""A schedule as options: one for each field of its class, with the help that its documentation has."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from clr_native.cli.parser import Parser, given, option
from clr_native.schedules import CyclicSchedule, OneCycleSchedule, RampSchedule, Schedule
from clr_native.schedules.cyclic import MODES, WINDOWS
from clr_native.schedules.one_cycle import ANNEAL_STRATEGIES, CONVENTIONS
from clr_native.schedules.ramp import RAMPS
from clr_native.spelling import known_as

# The kinds of schedule that options can give. A sequence is given in a TOML file.
KINDS: dict[str, type[Schedule]] = {"cyclic": CyclicSchedule, "one-cycle": OneCycleSchedule, "ramp": RampSchedule}
CHOICES = {
    "mode": MODES,
    "window": WINDOWS,
    "convention": CONVENTIONS,
    "anneal_strategy": ANNEAL_STRATEGIES,
    "ramp": RAMPS,
}
# Functions can only be given in Python, and scale_mode only says what they are called with.
FUNCTIONS = ("scale_fn", "scale_mode")


def fields(schedule_class: type[Schedule]) -> Iterator[dataclasses.Field[Any]]:
    """Yields the arguments of a schedule that can be written as text."""
    for field in dataclasses.fields(schedule_class):  # type: ignore[arg-type]  # the subclasses are dataclasses
        if field.name not in FUNCTIONS:
            yield field
    for name in schedule_class._init_only:
        yield schedule_class.__dataclass_fields__[name]  # type: ignore[attr-defined]  # every schedule is a dataclass


def add_options(parser: Parser, schedule_class: type[Schedule]) -> None:
    """Adds an option for each field. An option that is not given is not in the namespace either."""
    summary, formulas, documented = _documentation(schedule_class)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = summary, formulas
    group = parser.add_argument_group(f"arguments of {schedule_class.__name__}")
    for field in fields(schedule_class):
        if parser.get_default(field.name) is not None:  # `summary` has its own option of this name
            continue
        required = field.default is dataclasses.MISSING
        explained, name = documented.get(field.name, ""), option(field.name)
        settings: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        if isinstance(field.default, bool):
            explained = explained.replace("False:", f"--no-{name[2:]}:")
            explained += f" ({'on' if field.default else 'off'} by default)"
            action = group.add_argument(name, action=argparse.BooleanOptionalAction, **settings)
        else:
            if not required and field.default is not None:
                explained += f" (default {field.default})"
            choices = CHOICES.get(field.name)
            metavar = f"{{{','.join(choices)}}}" if choices else "N" if "int" in str(field.type) else "X"
            action = group.add_argument(name, required=required, metavar=metavar, **settings)
        # Not in settings, where BooleanOptionalAction of Python 3.10 would add that the default is ==SUPPRESS==.
        action.help = explained.replace("%", "%%")


def made_from_options(schedule_class: type[Schedule], arguments: argparse.Namespace) -> Schedule:
    """Makes the schedule. Raises TypeError or ValueError `--name value ...`, with the message of its class."""
    texts = {field.name: vars(arguments)[field.name] for field in fields(schedule_class) if field.name in arguments}
    try:
        return schedule_class(**{name: _value(name, text) for name, text in texts.items()})
    except (TypeError, ValueError) as error:
        raise type(error)(_of_options(str(error), schedule_class, texts)) from None


def _value(name: str, text: str | bool) -> object:
    """Returns an int or a float if the text is one. Other text stays text, which the schedule refuses by name."""
    if isinstance(text, bool) or name in CHOICES:
        return known_as(text, CHOICES[name]) if isinstance(text, str) else text
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _of_options(message: str, schedule_class: type[Schedule], texts: dict[str, str | bool]) -> str:
    """Rewrites a schedule's message about arguments for options: `name=value` becomes the text that was typed."""

    def replaced(found: re.Match[str]) -> str:
        name, value = found["name"], found["value"]
        if value in (None, "None"):
            return option(name)
        if found["divides"]:  # the value belongs to the quotient
            return f"{found['divides']}{option(name)}={value}"
        return given(option(name), texts.get(name, value.strip("'")))

    names = "|".join(field.name for field in fields(schedule_class))
    argument = rf"(?P<divides>/ )?\b(?P<name>{names})\b(?:=(?P<value>'[^']*'|[^\s,:;]+))?"
    return re.sub(argument, replaced, message)


def _documentation(schedule_class: type[Schedule]) -> tuple[str, str, dict[str, str]]:
    """Returns the docstring's first line, the text up to its `Args:`, and the text of each argument.

    Words for readers of Python are replaced by words for users of options. There is no docstring under `python -OO`.
    """
    text, _, rest = (inspect.getdoc(schedule_class) or "").replace("``", "").partition("\nArgs:\n")
    summary, *paragraphs = text.rstrip().split("\n\n")
    section, _, _ = rest.partition("\n\n")
    explained: dict[str, str] = {}
    for names, words in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE):
        sentences = " ".join(words.split()).rstrip(".").split(". ")
        plain = ". ".join(sentence for sentence in sentences if "scale_fn" not in sentence)
        plain = plain.replace("see above", "see below").replace("None:", "by default")
        explained |= dict.fromkeys(names.split(", "), plain)
    return summary, "\n\n".join(map(_shown, paragraphs)), explained


def _shown(paragraph: str) -> str:
    """Returns formulas as they stand, without functions, and other text as wide as the terminal, as argparse does."""
    if paragraph.startswith(" "):
        return "\n".join(line for line in paragraph.splitlines() if "scale_fn" not in line)
    return textwrap.fill(paragraph.replace("::", ":"), max(shutil.get_terminal_size().columns - 2, 11))
