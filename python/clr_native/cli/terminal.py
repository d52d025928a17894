"""A schedule drawn with characters, by plotext."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from typing import TextIO

import numpy as np
import plotext

from clr_native.schedules.evaluate import FloatArray
from clr_native.schedules.plot import Curve

# Replacements for a stream that cannot encode plotext's frames and dots.
_ASCII = str.maketrans("│┤├─┬┴┼┌┐└┘•", "|++-+++++++*")
_COLORS = ("blue+", "orange+", "green+", "red+", "magenta+", "cyan+")
# The characters of curves if colours do not tell them apart, or if there are no finer dots.
_LETTERS = "*o+x#@"


def _size() -> tuple[int, int]:
    """Returns columns and lines, with one line left for the prompt. Without a terminal, 80 and 24 are assumed."""
    size = shutil.get_terminal_size()
    return max(size.columns, 40), max(size.lines - 1, 12)


def parts() -> int:
    """Returns the width of a picture in dots."""
    return 2 * _size()[0]


def draw(curves: Sequence[Curve], stream: TextIO) -> None:
    """Draws the learning rates, and the momenta, if any, below. Uses colours only on a terminal."""
    columns, lines = _size()
    colored = stream.isatty() and "NO_COLOR" not in os.environ
    fine = _can_say(stream, "⣿")
    letters = not fine or (len(curves) > 1 and not colored)
    text = ""
    if len(curves) > 1:
        text = "  ".join(_legend(i, curve.label, letters) for i, curve in enumerate(curves)) + "\n"
        lines -= 1
    lower = max(lines // 3, 7) if any(curve.has_momentum for curve in curves) else 0
    text += _panel("learning rate", curves, [curve.lr for curve in curves], (columns, lines - lower), letters)
    if lower:
        text += _panel("momentum", curves, [curve.momentum for curve in curves], (columns, lower), letters)
    if not colored:
        text = plotext.uncolorize(text)
    stream.write(text if fine else text.translate(_ASCII))


def _can_say(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _marker(i: int, letters: bool) -> tuple[str, str]:
    """Returns the character and the colour of curve i."""
    return _LETTERS[i % len(_LETTERS)] if letters else "braille", _COLORS[i % len(_COLORS)]


def _legend(i: int, label: str, letters: bool) -> str:
    marker, color = _marker(i, letters)
    return str(plotext.colorize(f"{marker if letters else '⣿'} {label}", color))


def _panel(
    title: str, curves: Sequence[Curve], values: Sequence[FloatArray], size: tuple[int, int], letters: bool
) -> str:
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.limit_size(False, False)
    plotext.plotsize(*size)
    plotext.title(title)
    for i, (curve, ys) in enumerate(zip(curves, values, strict=True)):
        marker, color = _marker(i, letters)
        for xs, run in _runs(curve, ys):
            plotext.plot(xs, run, marker=marker, color=color)
    first, last = min(curve.steps[0] for curve in curves), max(curve.steps[-1] for curve in curves)
    places = sorted({int(min(first + i * (last + 1 - first) // 4, last)) for i in range(5)})
    plotext.xticks(places, [f"{place:,}" for place in places])
    every = np.concatenate(values)
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    margin = (0.05 * high or 1.0) if low == high else 0.0  # a constant is drawn in the middle
    plotext.ylim(low - margin, high + margin)
    marks = [low] if low == high else np.linspace(low, high, max(size[1] // 4, 2)).tolist()
    plotext.yticks(marks, [f"{mark:.3g}".rjust(9) for mark in marks])
    return str(plotext.build()).rstrip("\n") + "\n"


def _runs(curve: Curve, values: FloatArray) -> Iterator[tuple[list[int], list[float]]]:
    """Yields the stretches of a curve that have a value."""
    there = np.flatnonzero(~np.isnan(values))
    for place in np.split(there, np.flatnonzero(np.diff(there) > 1) + 1) if there.size else []:
        yield curve.steps[place].tolist(), values[place].tolist()
