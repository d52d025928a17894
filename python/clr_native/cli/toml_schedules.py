"""Schedules in a TOML file: a table is a schedule, an array of tables a sequence, and their names are the labels."""

from __future__ import annotations

import importlib
import re
import reprlib
from pathlib import Path
from typing import Any

from clr_native.checks import choice
from clr_native.cli.arguments import Fail, check_importable
from clr_native.cli.parser import given
from clr_native.cli.schedule_arguments import CHOICES, FUNCTIONS, fields
from clr_native.schedules import Schedule, ScheduleSequence, from_dict
from clr_native.spelling import known_as, nearest

HELP = """\
a TOML file of schedules. A table is one, and its name the label:

  [warm]
  kind = "ramp"           # or "cyclic" (the default), "one-cycle"
  start_lr = 0.0
  end_lr = 0.1
  num_steps = 500

An array of tables is a sequence; without n_steps, the last has no end:

  [[run]]
  n_steps = 500
  kind = "ramp"
  start_lr = 0.0
  end_lr = 0.1
  num_steps = 500

  [[run]]
  base_lr = 0.1
  max_lr = 0.4

A sequence in a sequence is a table whose `segments` are such an array. Keys are
the options of a schedule, with hyphens or underscores.
"""


def read(path: Path, fail: Fail) -> dict[str, Schedule]:
    """Returns the schedules of a file by name, in its order. Calls `fail` with what is wrong with the file."""
    toml, name = _toml(fail), given("--toml", path)
    try:
        document: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        fail(f"{name} cannot be read ({error.strerror}): name a TOML file")
    except UnicodeDecodeError as error:
        fail(f"{name} is not text ({error}): name a TOML file")
    except ValueError as error:
        fail(f"{name} is not TOML ({error}): mend it there")
    if not document:
        fail(f"{name} must hold at least one schedule: a table such as [name]")
    try:
        return {label: _labelled(label, value) for label, value in document.items()}
    except (TypeError, ValueError) as error:
        fail(f"{name}: {error}")


def _toml(fail: Fail) -> Any:
    """Returns Python's own TOML reader, or before Python 3.11 the package it came from."""
    try:
        return importlib.import_module("tomllib")
    except ModuleNotFoundError:
        check_importable("tomli", "tomli", "plot", fail)
        return importlib.import_module("tomli")


def _labelled(label: str, value: object) -> Schedule:
    """Makes a schedule of a table or an array of tables. Errors name the place in the file."""
    if isinstance(value, list):
        return _sequence(f"[[{label}]]", value)
    if not isinstance(value, dict):
        raise ValueError(f"{label}={value!r} must be in a table of its own: [name] before it")
    return _schedule(f"[{label}]", f"[[{label}.segments]]", value)


def _schedule(place: str, segments: str, table: dict[str, Any], *beside: str) -> Schedule:
    """Makes a schedule of a table. `segments`: the name of its array of segments. `beside`: more keys it may have."""
    table = _keys_spelt(place, table)
    kind = table.get("kind", "sequence" if "segments" in table else "cyclic")
    if isinstance(kind, str):
        kind = table["kind"] = known_as(kind, Schedule._kinds)
    choice(f"{place}: kind", kind, tuple(Schedule._kinds))
    if kind == "sequence" or "segments" in table:
        if kind != "sequence" or table.keys() != {"segments", "kind"} or not isinstance(table["segments"], list):
            raise ValueError(f"{place}: a sequence must have `segments`, an array of tables, and nothing else")
        return _sequence(segments, table["segments"])
    keys = [field.name for field in fields(Schedule._kinds[kind])]
    for name, value in table.items():
        if name in FUNCTIONS:
            raise ValueError(f"{place}: {name}={value!r} cannot be given in a file: functions need Python")
        if name == "n_steps":
            raise ValueError(f"{place}: n_steps={value!r} must stand in a table of a sequence, [[name]]")
        if name not in ("kind", *keys):
            known = ["kind", "segments", *keys, *beside]
            raise ValueError(
                f"{place}: {name}={reprlib.repr(value)} is not a key of a {kind} schedule{nearest(name, known)}"
            )
        if name in CHOICES and isinstance(value, str):
            table[name] = known_as(value, CHOICES[name])
    try:
        return from_dict(table)
    except (TypeError, ValueError) as error:
        said = str(error).replace("True or False", "true or false")  # as TOML writes them
        raise ValueError(f"{place}: {said}") from None


def _keys_spelt(place: str, table: dict[str, Any]) -> dict[str, Any]:
    """Returns the table with underscores in its keys, which may be written with hyphens."""
    spelt: dict[str, Any] = {}
    for name, value in table.items():
        if name.replace("-", "_") in spelt:
            raise ValueError(f"{place}: {name}={value!r} must not be given twice, with a hyphen and an underscore")
        spelt[name.replace("-", "_")] = value
    return spelt


def _sequence(array: str, tables: list[Any]) -> ScheduleSequence:
    """Makes a sequence of an array of tables. Errors count the tables from 1."""
    if not tables:
        raise ValueError(f"{array} must hold at least one table")
    segments = []
    for number, table in enumerate(tables, 1):
        place = f"{array} number {number}"
        if not isinstance(table, dict):
            raise ValueError(f"{place}: {table!r} must be a table")
        arguments = _keys_spelt(place, table)
        n_steps = arguments.pop("n_steps", None)
        segments.append((_schedule(place, f"{place}, segments", arguments, "n_steps"), n_steps))
    try:
        return ScheduleSequence(segments)
    except (TypeError, ValueError) as error:
        said = re.sub(r"^segment (\d+)", lambda found: f"{array} number {int(found[1]) + 1}", str(error))
        raise ValueError(said.replace("n_steps=None", "n_steps")) from None
