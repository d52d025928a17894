"""Numbers at the edges, and what is right for them, by exact arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
UNSIGNED: dict[str, Any] = {"f16": np.uint16, "bf16": np.uint16, "f32": np.uint32, "f64": np.uint64}
REAL: dict[str, Any] = {"f16": np.float16, "f32": np.float32, "f64": np.float64}
_32_BITS = """
00000000 00000001 00000002 007fffff 00800000 00800001 33ffffff 34000000 3f7fffff 3f800000 3f800001 477fe000 477ff000
4b7fffff 4f000000 4f7fffff 5f000000 7f7fffff 7f800000 7f800001 7fc00000
"""
_64_BITS = """
0000000000000000 0000000000000001 0000000000000002 000fffffffffffff 0010000000000000 0010000000000001 1ff0000000000000
36a0000000000001 3fefffffffffffff 3ff0000000000000 3ff0000000000001 41dfffffffc00000 41e0000000000000 43e0000000000000
43f0000000000000 47efffffefffffff 5fe0000000000001 7fefffffffffffff 7ff0000000000000 7ff8000000000000
"""
# Zero, the smallest and the largest, about one, about the largest integers, float16 and float32, and no numbers.
EDGES = {"f32": [int(x, 16) for x in _32_BITS.split()], "f64": [int(x, 16) for x in _64_BITS.split()]}


def edges(kind: str) -> Array:
    unsigned = UNSIGNED[kind]
    positive = np.array(EDGES[kind], unsigned)
    return np.concatenate([positive, positive | unsigned(1 << (positive.itemsize * 8 - 1))])


def all_edges(kind: str, count: int) -> list[Array]:
    grids = np.meshgrid(*[edges(kind)] * count)
    return [grid.reshape(-1).view(REAL[kind]) for grid in grids]


def doubles(values: Array) -> list[float]:
    with np.errstate(all="ignore"):
        return [float(x) for x in values.astype(np.float64)]


def rounded(exact: Fraction, kind: str) -> float:
    """To nearest even, with the precision and the range of the type; a double holds all of them."""
    precision, lowest, over = {
        "f32": (24, -149, 2**128),
        "f64": (53, -1074, 2**1024),
        "f16": (11, -24, 2**16),
        "bf16": (8, -133, 2**128),
    }[kind]
    if exact == 0:
        return 0.0
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length()
    if abs(exact) < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - precision + 1, lowest)
    sign = -1.0 if exact < 0 else 1.0
    magnitude = round(abs(exact) / unit) * unit
    return sign * (math.inf if magnitude >= over else float(magnitude))


def fma_truth(kind: str) -> Callable[[float, float, float], float]:
    def truth(a: float, b: float, c: float) -> float:
        if not all(map(math.isfinite, (a, b, c))):
            return (0.0 if math.isfinite(a) and math.isfinite(b) else a * b) + c
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        if exact == 0:
            return a * b + c if 0.0 in (a, b) else 0.0
        return rounded(exact, kind)

    return truth


def assert_same(got: Array, want: list[float], kind: str) -> None:
    """Bit for bit; NaN of float32 is the hardware's, of float64 any."""
    with np.errstate(all="ignore"):
        values = np.array(want, np.float64).astype(REAL[kind])
    expected = values.view(UNSIGNED[kind]).copy()
    nan = values != values
    if kind == "f64":
        real = got.view(np.float64)
        assert ((real != real) == nan).all()
        got = np.where(nan, expected, got)
    else:
        expected[nan] = 0x7FFFFFFF if kind == "f32" else 0x7FFF
    wrong = np.flatnonzero(got != expected)
    assert wrong.size == 0, f"{wrong[:5]}: {got[wrong[:5]]} {expected[wrong[:5]]}"
