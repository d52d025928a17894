"""`clr-native values`: schedules as numbers, a row a step."""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from clr_native.cli.arguments import Checked, Fail, one_of, whole_file
from clr_native.cli.parser import Parser
from clr_native.cli.requested import COUNT, Named, about, add_steps, refused, schedules_of, steps_of

# The number of steps whose values are written at a time.
_AT_A_TIME = 8192


def options(parser: Parser, default: str | None) -> None:
    add_steps(parser, default)
    parser.add_argument(
        "--every", action=Checked, check=COUNT, default=default or 1, metavar="N", help="one step in N (default 1)"
    )
    parser.add_argument(
        "--format",
        action=Checked,
        check=one_of("csv", "json"),
        default=default or "csv",
        metavar="{csv,json}",
        help="numbers with all their digits (default csv)",
    )
    parser.add_argument(
        "--out", type=Path, default=default, metavar="FILE", help="the file to write, instead of printing"
    )


def run(arguments: argparse.Namespace) -> None:
    fail: Fail = arguments.fail
    schedules = schedules_of(arguments)
    steps = steps_of(arguments, schedules, arguments.every)
    write = _write_json if arguments.format == "json" else _write_csv
    rows = _rows(schedules, steps, arguments)
    rows = itertools.chain([next(rows)], rows)  # evaluates the first row before anything is printed
    if arguments.out is None:
        write(rows, sys.stdout, named=arguments.kind is None)
        return
    with (
        whole_file("--out", arguments.out, about(schedules, steps), fail) as file,
        io.TextIOWrapper(file, "utf-8", newline="\n") as text,
    ):
        write(rows, text, named=arguments.kind is None)


def _rows(schedules: Named, steps: range, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields the rows, in the order of the columns. Momentum is None if there is none."""
    for name, schedule in schedules.items():
        for start in range(0, len(steps), _AT_A_TIME):
            some = steps[start : start + _AT_A_TIME]
            try:
                lrs, momenta = schedule.values(some)
            except ValueError as error:
                arguments.fail(refused(arguments, ValueError(f"{name}: {error}") if name else error))
            for step, lr, momentum in zip(some, lrs.tolist(), momenta.tolist(), strict=True):
                yield {"schedule": name, "step": step, "lr": lr, "momentum": None if math.isnan(momentum) else momentum}


def _columns(named: bool) -> list[str]:
    return [*(["schedule"] if named else []), "step", "lr", "momentum"]


def _write_csv(rows: Iterator[dict[str, Any]], stream: TextIO, named: bool) -> None:
    writer = csv.DictWriter(stream, _columns(named), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _write_json(rows: Iterator[dict[str, Any]], stream: TextIO, named: bool) -> None:
    """Writes an array with one row a line, however long it is."""
    columns, before = _columns(named), "["
    for row in rows:
        stream.write(before + "\n" + json.dumps({column: row[column] for column in columns}))
        before = ","
    stream.write("\n]\n")
