"""Alternating rounds, and what is told of them: medians and quartiles."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter_ns

import numpy as np

Visit = Callable[[], float]
Samples = dict[str, list[float]]

VISIT_SECONDS = 0.02
MOST_STEPS = 100


@dataclass(frozen=True)
class Spread:
    """A median with the quartiles around it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        low, middle, high = np.percentile(np.fromiter(values, float), (25, 50, 75))
        return cls(float(low), float(middle), float(high))


def seconds(function: Callable[[], object]) -> float:
    start = perf_counter_ns()
    function()
    return (perf_counter_ns() - start) * 1e-9


def visit(step: Callable[[], None], turn: Callable[[], None]) -> Visit:
    """Median time of a few steps in a row, each after the gradients have turned.

    The first step of a visit is not counted: it finds the caches full of another contender's state.
    """

    def timed() -> float:
        turn()
        return seconds(step)

    timed()
    steps = int(min(max(VISIT_SECONDS / timed(), 2), MOST_STEPS))

    def go() -> float:
        timed()
        return median(timed() for _ in range(steps))

    return go


def alternate(visits: Mapping[str, Visit], rounds: int, seed: int = 0) -> Samples:
    """Every contender once a round, in an order drawn anew each round: drift and neighbours cancel."""
    order = list(visits)
    shuffle = random.Random(seed).shuffle
    samples: Samples = {name: [] for name in order}
    gc.collect()
    gc.freeze()  # no contender pays for scanning the others' objects
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            samples[name].append(visits[name]())
    gc.unfreeze()
    return samples
