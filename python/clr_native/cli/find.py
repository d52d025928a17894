"""`clr-native find`: its arguments, checked before anything is loaded."""

from __future__ import annotations

import argparse
from pathlib import Path

from clr_native.cli.arguments import Checked, whole_number
from clr_native.cli.demo import add_run_arguments, check_run_arguments, told_in_a_line
from clr_native.cli.parser import Parser


def add(parser: Parser) -> None:
    add_run_arguments(parser, Path("clr-native-find.png"))
    parser.add_argument(
        "--repeats",
        action=Checked,
        check=whole_number(1, 1000),
        default=3,
        metavar="N",
        help="how many times the test is run, for a mean and intervals (default 3)",
    )
    parser.set_defaults(run=_run, fail=parser.error)


def _run(arguments: argparse.Namespace) -> None:
    check_run_arguments(arguments)

    from clr_native.demo import find

    with told_in_a_line(arguments):
        find.run(
            arguments.data,
            seed=arguments.seed,
            threads=arguments.threads,
            repeats=arguments.repeats,
            png=arguments.out,
            json=arguments.json,
        )
