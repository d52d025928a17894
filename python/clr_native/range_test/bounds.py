"""Smith's reading of a range test: the two rates between which the learning rate is to cycle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from clr_native.checks import number
from clr_native.range_test.descent import FEWEST_POINTS, Descent, find_descent, rate_at
from clr_native.range_test.stopping import WINDOW
from clr_native.schedules.evaluate import FloatArray

# The bounds hold the middle half of the descent: a quarter of it is made at the one, three quarters at the other.
STARTED: Final = 0.25
SLOWED: Final = 0.75
# A fall of fewer standard deviations of the noise than this is no fall. A shape fits few points better by chance: over
# pure noise, one fall in a hundred is above 0.4, 1, 1.5, 3 and 5 deviations at 300, 100, 50, 20 and 12 points.
LEAST_DROP: Final = 2.5
LEAST_DROP_OF_FEW: Final = 60.0  # divided by the number of points, and added
# A fall of less than this share of the losses' size is no fall either, for curves without noise.
LEAST_SHARE: Final = 1e-6
# If the curve falls this many times as steeply at its first steps, or at its last ones, as in its middle half, it lacks
# that end of the descent. The limit is higher for the last steps: noise hides where a descent slows.
FASTEST_AT_START: Final = 1.0
FASTEST_AT_END: Final = 1.125


@dataclass(frozen=True)
class LearningRateBounds:
    """The rates to cycle between, and how far they differ from one repetition of the test to another.

    Intervals go from the smallest to the largest answer of the single repetitions, leaving out those that have none;
    None where fewer than two have one.

    >>> LearningRateBounds(0.01, 0.1)
    LearningRateBounds(base_lr=0.01, max_lr=0.1, base_lr_interval=None, max_lr_interval=None)
    """

    base_lr: float
    max_lr: float
    base_lr_interval: tuple[float, float] | None = None
    max_lr_interval: tuple[float, float] | None = None


class NoAnswerError(ValueError):
    """The curve has no descent to read bounds from. The message says why, and what to do."""


def read_bounds(
    lr: FloatArray, losses: FloatArray, ratio: float | None, name: str, stopped: str
) -> tuple[float, float]:
    """Returns (base_lr, max_lr) of one curve. Errors call `losses` by `name`. NaN marks a loss that was not taken."""
    points = int((~np.isnan(losses)).sum())
    if points < FEWEST_POINTS:
        raise NoAnswerError(
            f"no bounds: {points} points of {name} are too few, at least {FEWEST_POINTS} are needed (the test ended "
            f"at: {stopped}): lower start_lr, or take more steps"
        )
    descent = find_descent(losses)
    _check_descent(descent, lr, losses, ratio, name)
    max_lr = float(rate_at(lr, descent.step_at(SLOWED)))
    base_lr = max_lr / ratio if ratio is not None else float(rate_at(lr, descent.step_at(STARTED)))
    return base_lr, max_lr


def _check_descent(descent: Descent, lr: FloatArray, losses: FloatArray, ratio: float | None, name: str) -> None:
    size = float(np.nanmax(np.abs(losses)))
    least = (LEAST_DROP + LEAST_DROP_OF_FEW / len(descent.curve)) * descent.noise
    if descent.drop <= max(least, LEAST_SHARE * size):
        rise = float(np.median(losses[~np.isnan(losses)][-WINDOW:])) - descent.top
        if rise > max(LEAST_DROP * descent.noise, LEAST_SHARE * size):
            raise NoAnswerError(
                f"no bounds: {name} never falls, it only gets worse (from {descent.top:.6g} on): lower "
                f"start_lr={lr[0]:.6g}; if that does not help, this model has nothing to learn from these batches"
            )
        raise NoAnswerError(
            f"no bounds: {name} is flat, its change of {descent.drop:.3g} is within the noise of {descent.noise:.3g}: "
            f"raise end_lr={lr[-1]:.6g}, or average the noise with more steps, repeats= or accumulate="
        )
    middle = descent.slope(descent.step_at(STARTED), descent.step_at(SLOWED))
    stretch = max((len(descent.curve) - 1) / 40.0, 1.0)
    end = len(descent.curve) - 1.0
    turns_up = len(descent.curve) < len(losses)
    if not turns_up and descent.slope(end - stretch, end) < FASTEST_AT_END * middle:
        raise NoAnswerError(
            f"no bounds: {name} falls ever faster up to the end of the test, "
            f"lr={lr[len(descent.curve) - 1]:.6g}: raise end_lr"
        )
    if ratio is None and descent.slope(0.0, stretch) < FASTEST_AT_START * middle:
        raise NoAnswerError(
            f"no base_lr: {name} falls fastest at the first rates, lr={lr[0]:.6g}: lower start_lr, or give ratio="
        )


def checked_ratio(ratio: float | None) -> float | None:
    """Checks the ratio of the paper's base = max / ratio."""
    if ratio is None:
        return None
    value = number("ratio", ratio)
    if not 1.0 < value < math.inf:
        raise ValueError(f"ratio={ratio!r} must be above 1: the paper takes 3 or 4, and 6 for a wide cycle")
    return value


def interval(values: list[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if len(values) > 1 else None
