"""Rules that pick a point of a curve: those of fastai 2.8, written anew from what they do.

Each takes ``lr`` and ``loss``, float64 arrays [n] of finite values with ``lr`` rising, and gives an index from 0 to n -
1: the one that fastai's function picks on the same points.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Final

import numpy as np

from clr_native.schedules.evaluate import FloatArray

Rule = Callable[[FloatArray, FloatArray], int]

# slide compares slopes that are this many points apart, until they differ by less than this.
SLIDE_WIDTH: Final = 15
SLIDE_SLOPE: Final = 0.005


def valley(lr: FloatArray, loss: FloatArray) -> int:
    """Half way down the longest valley, a longest run of ever lower losses with others between.

    With the first such run of greatest length ``k`` ending at point ``e``, the point ``e - k + k // 3 + k // 6``; for a
    run of two that is before its end by two, and taken from the end of the curve if it is negative, as fastai does.
    """
    _check(lr, loss, least=1)
    lowest_ends: list[float] = []  # of the runs of each length so far, the lowest last loss, negated: rising
    best = end = 0
    for index, value in enumerate((-loss).tolist()):
        place = bisect_left(lowest_ends, value)
        lowest_ends[place : place + 1] = [value]
        if place > best:
            best, end = place, index
    if best == 0:  # never lower than before
        return 0
    length = best + 1
    return (end - length + int(length / 3) + int(length / 3 / 2)) % len(loss)


def slide(lr: FloatArray, loss: FloatArray) -> int:
    """From the right, the first place at which the slope has stopped changing over 15 points.

    Slopes are by index, as fastai takes them. At least 16 points are needed: fewer have no two slopes to compare.
    """
    _check(lr, loss, least=SLIDE_WIDTH + 1)
    slopes = np.gradient(loss)
    changing = (np.abs(slopes[SLIDE_WIDTH:] - slopes[:-SLIDE_WIDTH]) > SLIDE_SLOPE)[::-1]
    places = len(changing) if changing.all() else int(np.argmin(changing))
    return len(loss) - SLIDE_WIDTH - 1 - max(places - 1, 0)


def minimum(lr: FloatArray, loss: FloatArray) -> int:
    """The lowest loss, the first if there are several. The suggestion is a tenth of the rate there."""
    _check(lr, loss, least=1)
    return int(np.argmin(loss))


def steep(lr: FloatArray, loss: FloatArray) -> int:
    """The point from which the loss falls most steeply to the next one, per log lr. Needs two points."""
    _check(lr, loss, least=2)
    with np.errstate(divide="ignore"):  # a linear ramp may start at 0
        return int(np.argmin(np.diff(loss) / np.diff(np.log(lr))))


RULES: Final[dict[str, Rule]] = {"valley": valley, "steep": steep, "slide": slide, "minimum": minimum}


def _check(lr: FloatArray, loss: FloatArray, least: int) -> None:
    if lr.shape != loss.shape or lr.ndim != 1:
        raise ValueError(f"lr of shape={lr.shape} and loss of shape={loss.shape} must be two arrays [n]")
    if len(loss) < least:
        raise ValueError(f"loss with {len(loss)} points: this rule needs at least {least}, take more steps")
    if not (np.isfinite(loss).all() and np.isfinite(lr).all()):
        raise ValueError("lr and loss must be finite: leave the points from the first other one on out")
