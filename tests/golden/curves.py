"""The curves over which fastai's rules have been asked, the same to the bit everywhere.

numpy promises that RandomState's numbers never change, and beyond them only + - * / and rounding are used.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

RANDOM_CURVES = 1000

EDGE_CASES: dict[str, list[float]] = {
    "one point": [1.0],
    "two, falling": [2.0, 1.0],
    "two, rising": [1.0, 2.0],
    "two, equal": [1.0, 1.0],
    "three, falling": [3.0, 2.0, 1.0],
    "falls at the end only": [1.0, 2.0, 3.0, 2.5],
    "constant": [1.0] * 20,
    "falling": [20.0 - i for i in range(20)],
    "rising": [1.0 + i for i in range(20)],
    "two valleys of one length": [3.0, 2.0, 1.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 9.0] * 2,
    "negative": [-1.0 * i for i in range(18)],
    "fifteen": [float(i * i % 7) for i in range(15)],
    "sixteen": [float(i * i % 7) for i in range(16)],
    "seventeen": [float(i * i % 7) for i in range(17)],
    "slopes that change by just 0.005": [0.005 * (i // 15) * i for i in range(40)],
    "huge": [1e300 - 1e298 * i for i in range(20)],
    "tiny": [1e-300 * (20 - i) for i in range(20)],
}


def curves() -> Iterator[tuple[str, FloatArray, FloatArray]]:
    """(name, lr [n], loss [n])."""
    for name, losses in EDGE_CASES.items():
        random = np.random.RandomState(len(losses))
        yield name, _rates(random, len(losses)), np.array(losses)
    for seed in range(RANDOM_CURVES):
        random = np.random.RandomState(seed)
        lr = _rates(random, random.randint(1, 130))
        yield f"random {seed}", lr, _losses(random, len(lr))


def _rates(random: np.random.RandomState, count: int) -> FloatArray:
    return np.asarray(1e-7 * np.cumprod(1.0 + 0.3 * random.random_sample(count) + 0.01), dtype=np.float64)


def _losses(random: np.random.RandomState, count: int) -> FloatArray:
    """A walk, steps that repeat, a fall, a fall with divergence, or a plain mess."""
    noise = random.random_sample(count) - 0.5
    place = np.arange(count) / count - 0.6
    kinds = (
        np.cumsum(noise),
        np.round(np.cumsum(noise) * 4.0) / 4.0,
        2.0 - 3.0 * place / (0.3 + np.abs(place)) + 0.3 * random.random_sample() * noise,
        2.0 - 3.0 * place / (0.3 + np.abs(place)) + np.maximum(place - 0.2, 0.0) * 40.0 + 0.1 * noise,
        10.0 * noise,
    )
    losses: FloatArray = np.asarray(kinds[random.randint(len(kinds))], dtype=np.float64)
    return losses
