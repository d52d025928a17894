"""A smoother without lag whose amount of smoothing comes from the data: a penalised spline.

The curve is a cubic spline on equally long pieces of the run, with the second differences of its coefficients penalised
(P-spline; Eilers and Marx, 1996). The weight of the penalty is the one that maximises the restricted likelihood (REML),
which is steadier than cross-validation on a hundred points. A moving average would lag behind, and puts the steepest
point too high.
"""

from __future__ import annotations

import functools
from typing import Final, NamedTuple

import numpy as np

from clr_native.schedules.evaluate import FloatArray

MOST_PIECES: Final = 60
ORDER: Final = 2  # of the differences that are penalised: with all weight on them the curve is a straight line
# The weights of the penalty that are tried, relative to the smoothest component's.
WEIGHTS: Final = 10.0 ** np.arange(-12.0, 6.01, 0.1)


class Smooth(NamedTuple):
    """The smoothed curve [n], and the variance of the noise around it as REML estimates it."""

    curve: FloatArray
    noise_variance: float


def smooth(values: FloatArray) -> Smooth:
    """Smooth `values` [n], taken at equal distances. NaN marks a missing value; the curve goes on there."""
    taken = np.flatnonzero(~np.isnan(values))
    if len(taken) <= ORDER + 1:
        return Smooth(np.interp(np.arange(len(values)), taken, values[taken]) if len(taken) else values.copy(), 0.0)
    components, stiffness = _components(len(values), tuple(taken.tolist()))
    present = values[taken]
    amounts = components[taken].T @ present
    unexplained = max(float(present @ present - amounts @ amounts), 0.0)
    kept = 1.0 / (1.0 + np.multiply.outer(WEIGHTS / stiffness[ORDER], stiffness))  # [weights, components]
    penalised = unexplained + ((1.0 - kept) * amounts**2).sum(axis=1)
    penalised = np.maximum(penalised, 1e-24 * float(present @ present) + np.finfo(float).tiny)
    degrees = len(taken) - ORDER
    criterion = degrees * np.log(penalised) - np.log1p(-kept[:, ORDER:]).sum(axis=1)
    best = int(np.argmin(criterion))
    return Smooth(components @ (kept[best] * amounts), float(penalised[best]) / degrees)


@functools.lru_cache(maxsize=16)
def _components(length: int, taken: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Returns curves [length, c], orthonormal over the values taken, and the penalty [c] of each, rising from 0."""
    spline = _spline(length, min(length - 1, MOST_PIECES))
    differences = np.diff(np.eye(spline.shape[1]), ORDER, axis=0)
    penalty = differences.T @ differences
    present = spline[list(taken)]
    gram = present.T @ present
    gram += 1e-9 * np.trace(gram) / np.trace(penalty) * penalty  # for pieces in which no value was taken
    root = np.linalg.inv(np.linalg.cholesky(gram + 1e-12 * np.trace(gram) * np.eye(len(gram))))
    stiffness, turn = np.linalg.eigh(root @ penalty @ root.T)
    stiffness[:ORDER] = 0.0  # these are 0 but for rounding
    return spline @ (root.T @ turn), np.maximum(stiffness, 0.0)


def _spline(length: int, pieces: int) -> FloatArray:
    """Returns the cubic B-splines [length, pieces + 3] on equal pieces, at 0, 1, ..., length - 1."""
    place = np.linspace(0.0, pieces, length)
    piece = np.minimum(place.astype(int), pieces - 1)
    t = place - piece
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    spline = np.zeros((length, pieces + 3))
    for offset, weight in enumerate(weights):
        spline[np.arange(length), piece + offset] = weight / 6.0
    return spline
