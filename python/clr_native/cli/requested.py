"""Reads the request to a command about schedules: which schedules, and at which of their steps."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TypeAlias

from clr_native.cli import toml_schedules
from clr_native.cli.arguments import Checked, Fail, whole_number
from clr_native.cli.parser import Parser, alternatives, given
from clr_native.cli.schedule_arguments import KINDS, made_from_options
from clr_native.schedules import CyclicSchedule, OneCycleSchedule, RampSchedule, Schedule, ScheduleSequence

# Schedules by their names in the TOML file, or one by "" if options gave it.
Named: TypeAlias = Mapping[str, Schedule]

COUNT = whole_number(1, 2**63 - 2)
_STEP = whole_number(0, 2**63 - 2)


def add_steps(parser: Parser, default: str | None) -> None:
    parser.add_argument(
        "--steps",
        action=Checked,
        check=COUNT,
        default=default,
        metavar="N",
        help="how many steps (default: up to the schedule's end, or four cycles)",
    )
    parser.add_argument(
        "--start", action=Checked, check=_STEP, default=default or 0, metavar="N", help="the first step (default 0)"
    )


def schedules_of(arguments: argparse.Namespace) -> Named:
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


def refused(arguments: argparse.Namespace, error: Exception) -> str:
    """Returns what is wrong with a schedule, and in which file."""
    return str(error) if arguments.toml is None else f"{given('--toml', arguments.toml)}: {error}"


def about(schedules: Named, steps: range) -> str:
    """Describes the content of a file, for the line that says that it was written."""
    named = ", ".join(name or repr(schedule) for name, schedule in schedules.items())
    return f"{named}, steps {steps[0]:,} to {steps[-1]:,}"


def steps_of(arguments: argparse.Namespace, schedules: Named, every: int = 1) -> range:
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
    """Returns how many steps show all of a schedule, or four cycles, which the paper advises, if it has no end."""
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
