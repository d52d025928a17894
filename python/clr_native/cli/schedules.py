"""The commands about schedules, which are given by options after their kind, or in a TOML file."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from clr_native.cli import plot, summary, toml_schedules, values
from clr_native.cli.parser import Parser, given
from clr_native.cli.schedule_arguments import KINDS, add_options

# Adds the options of a command. Each has this default if it is not None, else its own.
Options: TypeAlias = Callable[[Parser, str | None], None]


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the three commands."""
    for name, command, short, description in (
        (
            "plot",
            plot,
            "draw schedules, in the terminal or as PNG or SVG",
            "Draw learning rate and momentum, in the terminal unless --out names a file.",
        ),
        (
            "values",
            values,
            "print the values of schedules, as CSV or JSON",
            "Print step, lr and momentum, a row a step.",
        ),
        (
            "summary",
            summary,
            "hold schedules against what the paper advises",
            "Say what the paper advises for a run, and what a schedule does in it.",
        ),
    ):
        _add(commands.add_parser(name, help=short), command.options, command.run, description)


def _add(parser: Parser, options: Options, run: Callable[[argparse.Namespace], None], description: str) -> None:
    """Adds a command. Its options stand before or after the kind of a schedule, or with a TOML file."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = description
    parser.epilog = f"FILE.toml is {toml_schedules.HELP}"
    parser.add_argument("--toml", type=Path, metavar="FILE.toml", help="a file of schedules, see below")
    options(parser, None)
    parser.set_defaults(run=functools.partial(_run, run), fail=parser.error)
    kinds = parser.add_subparsers(title="or one schedule", dest="kind", parser_class=Parser)
    for kind, schedule_class in KINDS.items():
        inner = kinds.add_parser(kind, help=f"{schedule_class.__name__}: its arguments as options")
        options(inner, argparse.SUPPRESS)  # without SUPPRESS, defaults would undo options before the kind
        add_options(inner, schedule_class)
        inner.set_defaults(fail=inner.error)


def _run(run: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    """Runs a command. Fails if a file nests sequences more deeply than Python can follow."""
    try:
        run(arguments)
    except RecursionError:
        arguments.fail(f"{given('--toml', arguments.toml)} must not nest sequences so deeply: one may hold many tables")
