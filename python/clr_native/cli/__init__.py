"""The `clr-native` command."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence

import clr_native
from clr_native.cli import demo, find, info, schedules
from clr_native.cli.parser import Parser, UsageError, alternatives


def main(argv: Sequence[str] | None = None) -> int:
    """Run `clr-native` with `argv`; 0 is success, 2 a request that cannot be met, 130 Ctrl-C, 141 a reader gone."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show is no error
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                arguments = _parser().parse_args(argv)
                arguments.run(arguments)
            finally:  # also after a help, which ends here
                sys.stdout.flush()
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("clr-native: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `clr-native values ... | head`: the rest of the output is dropped silently
        _forget_output()
        return 141
    except OSError as error:  # each command handles its own files, so this is standard output
        _forget_output()
        print(f"clr-native: cannot print ({error.strerror})", file=sys.stderr)
        return 2
    return 0


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Shows a warning as one line, like an error. Its place in the source would not help a user of the command."""
    print(f"clr-native: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _forget_output() -> None:
    """Drops the rest of the output. Otherwise the interpreter would try again to print it at its end, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _parser() -> Parser:
    parser = Parser(
        prog="clr-native",
        description="SGD with momentum under a cyclical learning rate, one native call a step.",
    )
    parser.add_argument("--version", action="version", version=f"clr-native {clr_native.__version__}")
    commands = parser.add_subparsers(title="commands", parser_class=Parser)
    for name, command, explained in (
        ("info", info, "how this package was built and what it found here"),
        ("demo", demo, "train on handwritten digits, beside torch's own optimizer"),
        ("find", find, "find the rates to cycle between, by an LR range test on the same digits"),
    ):
        command.add(commands.add_parser(name, help=explained, description=f"{explained[0].upper()}{explained[1:]}."))
    schedules.add(commands)
    parser.set_defaults(run=lambda _: parser.error(f"which command? {alternatives(parser.commands)}"))
    return parser
