"""Schedules in a TOML file: a table is a schedule, an array of tables a sequence, and their names are the labels."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from clr_native.cli.arguments import Fail, check_importable
from clr_native.cli.schedule_arguments import FUNCTIONS
from clr_native.schedules import Schedule, ScheduleSequence, from_dict

HELP = """\
a TOML file of schedules. A table is one, and its name the label:

  [warm]
  kind = "ramp"           # or "cyclic" (the default), "one_cycle"
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

A sequence in a sequence is a table whose `segments` are such an array.
"""


def read(path: Path, fail: Fail) -> dict[str, Schedule]:
    """The schedules of a file by name, in its order; `fail` is told what is wrong with it."""
    toml = _toml(fail)
    try:
        document: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fail(f"toml={path} cannot be read ({error.strerror})")
    except ValueError as error:  # TOML's own errors, and text that is not UTF-8
        fail(f"toml={path} is not TOML ({error})")
    if not document:
        fail(f"toml={path} must hold at least one schedule: a table such as [name]")
    try:
        return {name: _schedule(name, value) for name, value in document.items()}
    except (TypeError, ValueError) as error:
        fail(f"toml={path}: {error}")


def _toml(fail: Fail) -> Any:
    """Python's own reader; before Python 3.11 the package it came from."""
    try:
        return importlib.import_module("tomllib")
    except ModuleNotFoundError:
        check_importable("tomli", "tomli", "plot", fail)
        return importlib.import_module("tomli")


def _schedule(place: str, value: object) -> Schedule:
    """A table or an array of tables; errors say where in the file."""
    if isinstance(value, list):
        return _sequence(place, value)
    if not isinstance(value, dict):
        raise ValueError(f"{place}={value!r} must be in a table of its own: [name] before it")
    if "segments" in value or value.get("kind") == "sequence":
        others = value.keys() - {"segments", "kind"}
        if others or value.get("kind", "sequence") != "sequence" or not isinstance(value.get("segments"), list):
            raise ValueError(f"{place}: a sequence must have `segments`, an array of tables, and nothing else")
        return _sequence(f"{place}.segments", value["segments"])
    for name in FUNCTIONS:
        if name in value:
            raise ValueError(f"{place}: {name}={value[name]!r} cannot be given in a file: functions need Python")
    try:
        return from_dict(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from None


def _sequence(place: str, tables: list[Any]) -> ScheduleSequence:
    segments = []
    for i, table in enumerate(tables):
        if not isinstance(table, dict):
            raise ValueError(f"{place}[{i}]={table!r} must be a table")
        arguments = dict(table)
        n_steps = arguments.pop("n_steps", None)
        segments.append((_schedule(f"{place}[{i}]", arguments), n_steps))
    try:
        return ScheduleSequence(segments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from None
