"""`clr-native plot`, `values` and `summary`: a schedule as a picture, as numbers, in words."""

from __future__ import annotations

import argparse
import csv
import functools
import io
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from clr_native.cli import toml_schedules
from clr_native.cli.arguments import (
    Checked,
    Fail,
    check_importable,
    check_writable,
    one_of,
    path_ending_in,
    whole_file,
    whole_number,
)
from clr_native.cli.parser import Parser, alternatives, given
from clr_native.cli.schedule_arguments import KINDS, add_options, made_from_options
from clr_native.plotting import MOST_STEPS, curves, plot_schedule
from clr_native.schedules import CyclicSchedule, OneCycleSchedule, RampSchedule, Schedule, ScheduleSequence
from clr_native.schedules._checks import LARGEST_SIZE

# A schedule by its name in the TOML file, or by "" if options gave it.
Named: TypeAlias = Mapping[str, Schedule]
# Adds the options of a command, each with this default if it is not None, else with its own.
Options: TypeAlias = Callable[[Parser, str | None], None]

_STEP = whole_number(0, 2**63 - 2)
_COUNT = whole_number(1, 2**63 - 2)
_SIZE = whole_number(1, LARGEST_SIZE)
# Steps whose values are written at a time.
_AT_A_TIME = 8192


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """The three commands."""
    plot = commands.add_parser("plot", help="draw schedules, in the terminal or as PNG or SVG")
    _add(plot, _plot_options, _plot, "Draw learning rate and momentum, in the terminal unless --out names a file.")
    values = commands.add_parser("values", help="print the values of schedules, as CSV or JSON")
    _add(values, _values_options, _values, "Print step, lr and momentum, a row a step.")
    summary = commands.add_parser("summary", help="hold schedules against what the paper advises")
    _add(summary, _summary_options, _summary, "Say what the paper advises for a run, and what a schedule does in it.")


def _add(parser: Parser, options: Options, run: Callable[[argparse.Namespace], None], description: str) -> None:
    """A command: its options stand before or after the kind of a schedule given by options, or with a TOML file."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = description
    parser.epilog = f"FILE.toml is {toml_schedules.HELP}"
    parser.add_argument("--toml", type=Path, metavar="FILE.toml", help="a file of schedules, see below")
    options(parser, None)
    parser.set_defaults(run=functools.partial(_run, run), fail=parser.error)
    kinds = parser.add_subparsers(title="or one schedule", dest="kind", parser_class=Parser)
    for kind, schedule_class in KINDS.items():
        inner = kinds.add_parser(kind, help=f"{schedule_class.__name__}: its arguments as options")
        options(inner, argparse.SUPPRESS)  # else its defaults would undo what stands before the kind
        add_options(inner, schedule_class)
        inner.set_defaults(fail=inner.error)


def _run(run: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    try:
        run(arguments)
    except RecursionError:
        arguments.fail(f"{given('--toml', arguments.toml)} must not nest sequences so deeply: one may hold many tables")


def _add_steps(parser: Parser, default: str | None) -> None:
    parser.add_argument(
        "--steps",
        action=Checked,
        check=_COUNT,
        default=default,
        metavar="N",
        help="how many steps (default: up to the schedule's end, or four cycles)",
    )
    parser.add_argument(
        "--start", action=Checked, check=_STEP, default=default or 0, metavar="N", help="the first step (default 0)"
    )


def _plot_options(parser: Parser, default: str | None) -> None:
    _add_steps(parser, default)
    parser.add_argument(
        "--out",
        action=Checked,
        check=path_ending_in(".png", ".svg"),
        default=default,
        metavar="FILE.png|FILE.svg",
        help="the picture to write, instead of drawing in the terminal",
    )


def _values_options(parser: Parser, default: str | None) -> None:
    _add_steps(parser, default)
    parser.add_argument(
        "--every", action=Checked, check=_COUNT, default=default or 1, metavar="N", help="one step in N (default 1)"
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


def _summary_options(parser: Parser, default: str | None) -> None:
    for name, explained in (("steps-per-epoch", "optimizer updates of an epoch"), ("epochs", "epochs of the run")):
        parser.add_argument(f"--{name}", action=Checked, check=_SIZE, default=default, metavar="N", help=explained)


def _schedules(arguments: argparse.Namespace) -> Named:
    fail: Fail = arguments.fail
    if arguments.kind is None:
        if arguments.toml is None:
            fail(f"which schedule? {alternatives(KINDS)} with its arguments, or --toml FILE.toml")
        return toml_schedules.read(arguments.toml, fail)
    if arguments.toml is not None:
        fail(f"{given('--toml', arguments.toml)} and {arguments.kind} must not both be given")
    try:
        return {"": made_from_options(KINDS[arguments.kind], arguments)}
    except (TypeError, ValueError) as error:
        fail(str(error))


def _refused(arguments: argparse.Namespace, error: Exception) -> str:
    """What is wrong with a schedule, and where it stands."""
    return str(error) if arguments.toml is None else f"{given('--toml', arguments.toml)}: {error}"


def _about(schedules: Named, steps: range) -> str:
    """What a file holds, for the line that says that it is written."""
    named = ", ".join(name or repr(schedule) for name, schedule in schedules.items())
    return f"{named}, steps {steps[0]:,} to {steps[-1]:,}"


def _steps(arguments: argparse.Namespace, schedules: Named, every: int = 1) -> range:
    start, count = arguments.start, arguments.steps
    if count is None:
        end = max(_natural_steps(schedule) for schedule in schedules.values())
        if start >= end:
            arguments.fail(f"--start {start} must be less than the {end} steps of the schedule, or --steps be given")
        count = end - start
    if start + count > 2**63 - 1:
        arguments.fail(f"--steps {count} must not lead beyond step 2**63 - 2")
    return range(start, start + count, every)


def _natural_steps(schedule: Schedule) -> int:
    """How many steps show the whole of it; of what has no end, four cycles, as many as the paper advises."""
    match schedule:
        case CyclicSchedule():
            return 4 * schedule.cycle_length
        case OneCycleSchedule():
            return schedule.total_steps
        case RampSchedule():
            return schedule.num_steps + 1
        case ScheduleSequence():
            return sum(_natural_steps(each) if n_steps is None else n_steps for each, n_steps in schedule.segments)
    raise AssertionError(f"{schedule!r} is of no known kind")


def _plot(arguments: argparse.Namespace) -> None:
    fail: Fail = arguments.fail
    schedules = _schedules(arguments)
    steps = _steps(arguments, schedules)
    if len(steps) > MOST_STEPS:
        fail(f"--steps {len(steps)} must be at most {MOST_STEPS} for a picture")
    labels = list(schedules) if arguments.kind is None else None
    if arguments.out is not None:
        check_writable("--out", arguments.out, fail)
        picture = _picture(schedules, steps, labels, arguments)
        with whole_file("--out", arguments.out, _about(schedules, steps), fail) as file:
            file.write(picture)
        return
    check_importable("plotext", "plotext", "plot", fail)
    from clr_native.cli import terminal

    try:
        drawn = curves(list(schedules.values()), steps, labels, parts=terminal.parts())
    except ValueError as error:
        fail(_refused(arguments, error))
    terminal.draw(drawn, sys.stdout)


def _picture(schedules: Named, steps: range, labels: list[str] | None, arguments: argparse.Namespace) -> bytes:
    try:
        axes = plot_schedule(*schedules.values(), steps=steps, labels=labels)
    except ImportError as error:
        arguments.fail(str(error))
    except ValueError as error:
        arguments.fail(_refused(arguments, error))
    form = arguments.out.name.lower().rpartition(".")[2]  # of a file named .png too
    import matplotlib
    from matplotlib.figure import Figure

    figure = axes.figure
    assert isinstance(figure, Figure)
    written = io.BytesIO()
    # The same picture is the same file: names inside it that are not random, and no date.
    with matplotlib.rc_context({"svg.hashsalt": "clr-native"}):
        figure.savefig(written, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return written.getvalue()


def _values(arguments: argparse.Namespace) -> None:
    fail: Fail = arguments.fail
    schedules = _schedules(arguments)
    steps = _steps(arguments, schedules, arguments.every)
    write = _write_json if arguments.format == "json" else _write_csv
    rows = _rows(schedules, steps, arguments)
    rows = itertools.chain([next(rows)], rows)  # evaluated before anything is printed
    if arguments.out is None:
        write(rows, sys.stdout, named=arguments.kind is None)
        return
    about = _about(schedules, steps)
    with whole_file("--out", arguments.out, about, fail) as file, io.TextIOWrapper(file, "utf-8", newline="\n") as text:
        write(rows, text, named=arguments.kind is None)


def _rows(schedules: Named, steps: range, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What is written, in order of its columns; momentum is None where there is none."""
    for name, schedule in schedules.items():
        for start in range(0, len(steps), _AT_A_TIME):
            some = steps[start : start + _AT_A_TIME]
            try:
                lrs, momenta = schedule.values(some)
            except ValueError as error:
                arguments.fail(_refused(arguments, ValueError(f"{name}: {error}") if name else error))
            for step, lr, momentum in zip(some, lrs.tolist(), momenta.tolist(), strict=True):
                yield {"schedule": name, "step": step, "lr": lr, "momentum": None if math.isnan(momentum) else momentum}


def _columns(named: bool) -> list[str]:
    return [*(["schedule"] if named else []), "step", "lr", "momentum"]


def _write_csv(rows: Iterator[dict[str, Any]], stream: TextIO, named: bool) -> None:
    writer = csv.DictWriter(stream, _columns(named), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _write_json(rows: Iterator[dict[str, Any]], stream: TextIO, named: bool) -> None:
    """An array with a row a line, as long as it may be."""
    columns, before = _columns(named), "["
    for row in rows:
        stream.write(before + "\n" + json.dumps({column: row[column] for column in columns}))
        before = ","
    stream.write("\n]\n")


def _summary(arguments: argparse.Namespace) -> None:
    fail: Fail = arguments.fail
    per_epoch, epochs = arguments.steps_per_epoch, arguments.epochs
    if "total_steps" in arguments:  # The schedule has a length of its own, to be held against the run's.
        del arguments.steps_per_epoch, arguments.epochs
    schedules = _schedules(arguments)
    if per_epoch is None or epochs is None:
        fail("--steps-per-epoch and --epochs must both be given")
    for name, schedule in schedules.items():
        print(f"{name}: " if name else "", schedule.summary(per_epoch, epochs), sep="")
