"""Decides when a range test has seen enough."""

from __future__ import annotations

import math
import statistics
from collections import deque

WINDOW = 5


def range_of(start: float, best: float, noise: float) -> float:
    """Returns how far a loss has come down, or a substitute if it has not come down."""
    return max(start - best, 6.0 * noise, abs(start) / 100.0)


class Divergence:
    """Tells when the loss has risen far above its best, measured by how far it had come down.

    Judged on running medians of five losses: a single ragged batch does not end a test, and there is no lag of more
    than two. With s the first median and b the best one so far, a median above ``b + stop_factor * range`` is
    divergence, where ``range = max(s - b, 6 * noise, |s| / 100)``. The noise is the median absolute difference of
    neighbouring losses; it and the last term stand in where the loss has not come down. Adding a constant to all
    losses, negative ones or not, leaves the decision as it is but for that last term.
    """

    def __init__(self, stop_factor: float) -> None:
        self._factor = stop_factor
        self._window: deque[float] = deque(maxlen=WINDOW)
        self._differences: list[float] = []
        self._start = math.nan
        self._best = math.inf

    def observe(self, loss: float) -> str | None:
        """Take the next loss. Returns the reason why the test must stop, or None."""
        if self._window:
            self._differences.append(abs(loss - self._window[-1]))
        self._window.append(loss)
        if len(self._window) < WINDOW:
            return None
        level = statistics.median(self._window)
        if math.isnan(self._start):
            self._start = level
        self._best = min(self._best, level)
        noise = statistics.median(self._differences)
        span = range_of(self._start, self._best, noise)
        if level <= self._best + self._factor * span:
            return None
        return (
            f"loss={level:.6g} is more than {self._factor:g} times its range {span:.6g} above its best {self._best:.6g}"
        )
