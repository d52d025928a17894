"""`clr-native summary`: schedules in words, compared with the paper's advice."""

from __future__ import annotations

import argparse

from clr_native.checks import LARGEST_SIZE
from clr_native.cli.arguments import Checked, Fail, whole_number
from clr_native.cli.parser import Parser
from clr_native.cli.requested import schedules_of

_SIZE = whole_number(1, LARGEST_SIZE)


def options(parser: Parser, default: str | None) -> None:
    for name, explained in (("steps-per-epoch", "optimizer updates of an epoch"), ("epochs", "epochs of the run")):
        parser.add_argument(f"--{name}", action=Checked, check=_SIZE, default=default, metavar="N", help=explained)


def run(arguments: argparse.Namespace) -> None:
    fail: Fail = arguments.fail
    per_epoch, epochs = arguments.steps_per_epoch, arguments.epochs
    for name in ("steps_per_epoch", "epochs"):
        # A schedule with its own length is compared with the run's length; another schedule may take the run's.
        if "total_steps" in arguments or getattr(arguments, name) is None:
            delattr(arguments, name)
    schedules = schedules_of(arguments)
    missing = [name for name, given in (("--steps-per-epoch", per_epoch), ("--epochs", epochs)) if given is None]
    if missing:
        fail(f"{' and '.join(missing)} must be given")
    for name, schedule in schedules.items():
        print(f"{name}: " if name else "", schedule.summary(per_epoch, epochs), sep="")
