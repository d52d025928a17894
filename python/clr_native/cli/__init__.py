"""The `clr-native` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import clr_native
from clr_native.cli import demo, find, info, schedules
from clr_native.cli.arguments import Parser, UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run `clr-native` with `argv`; 0 is success, 2 a request that cannot be met, 130 Ctrl-C, 141 a reader gone."""
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
        sys.stdout.flush()
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("clr-native: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `clr-native values ... | head`: what is left to print goes nowhere, without a word
        _forget_output()
        return 141
    except RecursionError:  # of a TOML file
        print("clr-native: schedules are nested too deeply", file=sys.stderr)
        return 2
    except OSError as error:  # every file is the business of its command: what is left is standard output
        _forget_output()
        print(f"clr-native: cannot print ({error.strerror})", file=sys.stderr)
        return 2
    return 0


def _forget_output() -> None:
    """Else the interpreter would try again to print what is left, and complain, when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _parser() -> Parser:
    parser = Parser(
        prog="clr-native",
        description="SGD with momentum under a cyclical learning rate, one native call a step.",
    )
    parser.add_argument("--version", action="version", version=f"clr-native {clr_native.__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="{info,demo,find,plot,values,summary}", required=True, parser_class=Parser
    )
    info.add(commands.add_parser("info", help="how this package was built and what it found here"))
    demo.add(commands.add_parser("demo", help="train on handwritten digits, beside torch's own optimizer"))
    find.add(
        commands.add_parser("find", help="find the rates to cycle between, by an LR range test on the same digits")
    )
    schedules.add(commands)
    return parser
