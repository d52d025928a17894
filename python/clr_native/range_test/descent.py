"""The descent in a curve of losses: the level before it, the fall, and the point at which the loss turns up again.

A range test's curve goes down once: it bends down from its first level (concave), and past its steepest point it bends
up (convex), through the minimum and into divergence. Among the curves of that shape the one that fits best is taken, by
least squares with the bends as unknowns of known sign. The sign does what no amount of smoothing does: ripples on the
level and near the minimum cannot pass for a fall. Where the bend changes its sign is not decided: fits for every place
are averaged, with their likelihoods as weights.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np

from clr_native.range_test.smooth import smooth
from clr_native.range_test.stopping import WINDOW, range_of
from clr_native.schedules.evaluate import FloatArray

MOST_BENDS: Final = 48
# The fit ends where the loss has risen by this share of its fall: divergence must not shape it.
RISE_KEPT: Final = 0.25
# The penalty of bends is the noise's variance over theirs, times this. It is below 1, because the variance of a
# smoothed curve is too small.
RIDGE: Final = 0.3
FEWEST_POINTS: Final = 8


@dataclass(frozen=True)
class Descent:
    """The fitted curve at steps 0, 1, ..., len(curve) - 1 of the test, and the noise's standard deviation around it."""

    curve: FloatArray
    noise: float

    @property
    def top(self) -> float:
        """The level before the fall."""
        return float(self.curve[: self.lowest + 1].max())

    @property
    def lowest(self) -> int:
        """The step of the lowest point."""
        return int(np.argmin(self.curve))

    @property
    def drop(self) -> float:
        """The height of the fall; 0 if the curve does not fall."""
        return self.top - float(self.curve[self.lowest])

    def step_at(self, share: float) -> float:
        """Returns the step, or a place between two, at which `share` of the drop is made: 1 at the lowest point."""
        start = int(np.argmax(self.curve[: self.lowest + 1]))
        fall = self.curve[start : self.lowest + 1]
        return start + float(np.interp(share * self.drop, self.top - fall, np.arange(len(fall))))

    def slope(self, first: float, last: float) -> float:
        """Returns the mean slope per step between two steps."""
        low, high = np.interp([first, last], np.arange(len(self.curve)), self.curve)
        return float(high - low) / (last - first)

    def averaged(self, lr: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Returns rates and losses of the curve, averaged over the width of its fall from a tenth to nine tenths.

        The slope of an average is the slope of a chord: its steepest point does not depend on how small details are.
        """
        width = max(round(self.step_at(0.9) - self.step_at(0.1)), 1)
        losses = np.convolve(self.curve, np.full(width, 1.0 / width), mode="valid")
        centres = np.arange(len(losses), dtype=np.float64) + (width - 1) / 2.0
        return rate_at(lr, centres), losses


def rate_at(lr: FloatArray, steps: FloatArray | float) -> FloatArray:
    """Returns the rates at steps that may lie between two of the test's: their logs are interpolated."""
    low = np.maximum(lr, np.finfo(float).tiny)  # a linear ramp may start at 0
    return np.exp(np.interp(steps, np.arange(len(lr)), np.log(low)))


def find_descent(losses: FloatArray) -> Descent:
    """As ``fit_descent``, but keeps the results of the last curves: bounds and suggestions use the same curves."""
    return _remembered(losses.tobytes())


@functools.lru_cache(maxsize=32)
def _remembered(losses: bytes) -> Descent:
    return fit_descent(np.frombuffer(losses))


def capped(losses: FloatArray) -> FloatArray:
    """Caps the heights of divergence: no loss lies further above the first losses than the best lies below them.

    Levels are running medians of five, as those that end a test. A loss of a million says no more than that it has
    diverged, but would bend any curve that is fitted to it.
    """
    taken = losses[~np.isnan(losses)]
    if len(taken) < WINDOW:
        return losses
    levels = np.median(np.lib.stride_tricks.sliding_window_view(taken, WINDOW), axis=1)
    start, noise = float(levels[0]), float(np.median(np.abs(np.diff(taken))))
    return np.minimum(losses, start + range_of(start, float(levels.min()), noise))


def fit_descent(losses: FloatArray) -> Descent:
    """Returns the descent in capped `losses` [n] at equal distances; NaN marks a missing one. Needs at least 8."""
    losses = losses[: _end_of_fit(losses)]
    smoothed, variance = smooth(losses)
    taken = ~np.isnan(losses)
    bends = min(MOST_BENDS, int(taken.sum()) - 2)
    shapes = _Shapes(losses, taken, bends, RIDGE * variance / _mean_square_bend(smoothed, bends))
    fits = [shapes.fit(turn) for turn in range(bends + 1)]
    misfits = np.array([misfit for misfit, _ in fits])
    likelihoods = np.exp((misfits.min() - misfits) / max(2.0 * variance, np.finfo(float).tiny))
    curve = np.average([fitted for _, fitted in fits], axis=0, weights=likelihoods)
    return Descent(curve, float(np.sqrt(np.mean((losses[taken] - curve[taken]) ** 2))))


def _end_of_fit(losses: FloatArray) -> int:
    """Returns the number of points before the loss has risen again from its lowest by a share of its fall."""
    curve = smooth(losses).curve
    lowest = int(np.argmin(curve))
    drop = float(curve[: lowest + 1].max() - curve[lowest])
    risen = np.flatnonzero(curve[lowest:] > curve[lowest] + RISE_KEPT * drop)
    end = lowest + int(risen[0]) if len(risen) and drop > 0.0 else len(losses)
    # There must be enough points to fit a shape, even if the loss rises at once.
    taken = np.flatnonzero(~np.isnan(losses))
    return max(end, int(taken[FEWEST_POINTS - 1]) + 1)


def _mean_square_bend(curve: FloatArray, bends: int) -> float:
    """Returns the mean square of the changes of slope of the curve over a run of length 1, drawn with `bends` bends."""
    corners = np.interp(np.linspace(0.0, len(curve) - 1.0, bends + 2), np.arange(len(curve)), curve)
    return max(float(np.mean((np.diff(corners, 2) * (bends + 1)) ** 2)), np.finfo(float).tiny)


class _Shapes:
    """Polygons over a run of length 1: level - fall * x + sum of bend_j * max(x - x_j, 0)."""

    def __init__(self, losses: FloatArray, taken: np.ndarray[tuple[int], np.dtype[np.bool_]], bends: int, ridge: float):
        x = np.linspace(0.0, 1.0, len(losses))
        places = np.linspace(0.0, float(taken.sum()) - 1.0, bends + 2)[1:-1]
        corners = np.interp(places, np.arange(taken.sum()), x[taken])  # with losses between any two corners
        hinges = np.maximum(np.subtract.outer(x, corners), 0.0)
        self._parts = np.concatenate([np.ones((len(x), 1)), -x[:, None], hinges], axis=1)
        present = self._parts[taken]
        # Levels near 0 keep the sums of squares small, compared with the differences between shapes.
        self._offset = float(losses[taken].mean())
        centred = losses[taken] - self._offset
        self._gram, self._moments, self._square = present.T @ present, present.T @ centred, float(centred @ centred)
        self._ridge = np.diag([0.0, 0.0, *np.full(bends, ridge)])

    def fit(self, turn: int) -> tuple[float, FloatArray]:
        """Fits the polygon that bends down at the first `turn` corners, then up. Returns its misfit and curve [n]."""
        signs = np.ones(len(self._moments))
        signs[2 : 2 + turn] = -1.0
        gram = self._gram * np.multiply.outer(signs, signs) + self._ridge
        moments = self._moments * signs
        amounts = nonnegative_minimum(gram, moments)
        misfit = float(amounts @ gram @ amounts - 2.0 * moments @ amounts) + self._square
        return misfit, self._offset + self._parts @ (signs * amounts)


def nonnegative_minimum(gram: FloatArray, moments: FloatArray) -> FloatArray:
    """Returns the x with ``x[1:] >= 0`` that minimises ``x @ gram @ x / 2 - moments @ x``.

    Uses block principal pivoting (Portugal, Judice and Vicente, 1994): negative entries are set to 0, and entries at 0
    whose gradient pulls upwards are released. All change at once, or one by one if that makes no progress.
    """
    size = len(moments)
    free = np.arange(size) == 0
    fewest, chances = size + 1, 3
    tolerance = 1e-10 * max(float(np.abs(moments).max()), np.finfo(float).tiny)
    values = np.zeros(size)
    for _ in range(20 * size):
        values = np.zeros(size)
        values[free] = np.linalg.solve(gram[np.ix_(free, free)], moments[free])
        wrong = np.where(free, values < -1e-12 * np.abs(values).max(), gram @ values - moments < -tolerance)
        wrong[0] = False
        count = int(wrong.sum())
        if count == 0:
            break
        if count < fewest:
            fewest, chances = count, 3
        elif chances > 0:
            chances -= 1
        else:
            wrong = np.arange(size) == np.flatnonzero(wrong)[-1]
        free = free ^ wrong
    values[1:] = np.maximum(values[1:], 0.0)
    return values
