"""`clr-native plot`: schedules as a picture, in the terminal or in a file."""

from __future__ import annotations

import argparse
import io
import sys

from clr_native.cli.arguments import Checked, Fail, check_importable, check_writable, path_ending_in, whole_file
from clr_native.cli.parser import Parser
from clr_native.cli.requested import Named, about, add_steps, refused, schedules_of, steps_of
from clr_native.schedules.plot import MOST_STEPS, curves, plot_schedule


def options(parser: Parser, default: str | None) -> None:
    add_steps(parser, default)
    parser.add_argument(
        "--out",
        action=Checked,
        check=path_ending_in(".png", ".svg"),
        default=default,
        metavar="FILE.png|FILE.svg",
        help="the picture to write, instead of drawing in the terminal",
    )


def run(arguments: argparse.Namespace) -> None:
    fail: Fail = arguments.fail
    schedules = schedules_of(arguments)
    steps = steps_of(arguments, schedules)
    if len(steps) > MOST_STEPS:
        fail(f"--steps {len(steps)} must be at most {MOST_STEPS} for a picture")
    labels = list(schedules) if arguments.kind is None else None
    if arguments.out is not None:
        check_writable("--out", arguments.out, fail)
        picture = _picture(schedules, steps, labels, arguments)
        with whole_file("--out", arguments.out, about(schedules, steps), fail) as file:
            file.write(picture)
        return
    check_importable("plotext", "plotext", "plot", fail)
    from clr_native.cli import terminal

    try:
        drawn = curves(list(schedules.values()), steps, labels, parts=terminal.parts())
    except ValueError as error:
        fail(refused(arguments, error))
    terminal.draw(drawn, sys.stdout)


def _picture(schedules: Named, steps: range, labels: list[str] | None, arguments: argparse.Namespace) -> bytes:
    check_importable("matplotlib.figure", "matplotlib", "plot", arguments.fail)
    import matplotlib
    from matplotlib.figure import Figure

    form = arguments.out.name.lower().rpartition(".")[2]  # the format; also of a file named just .png
    written = io.BytesIO()
    # The same picture gives the same file: it has no random names inside and no date. A label is not read as a formula.
    with matplotlib.rc_context({"svg.hashsalt": "clr-native", "text.parse_math": False}):
        try:
            figure = plot_schedule(*schedules.values(), steps=steps, labels=labels).figure
        except ValueError as error:
            arguments.fail(refused(arguments, error))
        assert isinstance(figure, Figure)
        figure.savefig(written, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return written.getvalue()
