"""The interpreter's floating-point instructions against exact arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ptx.tests.exact import REAL, UNSIGNED, Array, all_edges, assert_same, doubles, fma_truth, rounded
from ptx.tests.one_instruction import results


def numbers(kind: str, count: int) -> st.SearchStrategy[list[Array]]:
    width = 32 if kind == "f32" else 64
    return st.lists(arrays(UNSIGNED[kind], 64, elements=st.integers(0, 2**width - 1)), min_size=count, max_size=count)


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_fma_rounds_the_exact_result_once(kind: str) -> None:
    inputs = all_edges(kind, 3)
    got = results(f"fma.rn.{kind}", [kind] * 4, inputs)
    truth = fma_truth(kind)
    some = slice(None) if kind == "f32" else slice(0, None, 5)
    want = [truth(*row) for row in zip(*(doubles(x[some]) for x in inputs), strict=True)]
    assert_same(got[some], want, kind)


@pytest.mark.parametrize("kind", ["f32", "f64"])
@settings(derandomize=True, max_examples=40, deadline=None)
@given(data=st.data())
def test_fma_where_almost_all_cancels_or_ties(kind: str, data: st.DataObject) -> None:
    """c is near -a b, or a tie of it away."""
    a, b, noise = (x.view(REAL[kind]) for x in data.draw(numbers(kind, 3)))
    with np.errstate(all="ignore"):
        a, b = (np.ldexp(np.frexp(x)[0], data.draw(st.integers(-60, 60))) for x in (a, b))
        a, b = (np.where(np.isfinite(x), x, REAL[kind](1)).astype(REAL[kind]) for x in (a, b))
        shift = data.draw(st.integers(-80, 80))
        c = (
            np.ldexp(-(a * b), shift)
            if data.draw(st.booleans())
            else np.where(np.isfinite(noise), noise, 1).astype(REAL[kind])
        )
    truth = fma_truth(kind)
    want = [truth(*row) for row in zip(doubles(a), doubles(b), doubles(c), strict=True)]
    assert_same(results(f"fma.rn.{kind}", [kind] * 4, [a, b, c]), want, kind)


def two(
    kind: str, exact: Callable[[Fraction, Fraction], Fraction], host: Callable[[float, float], Any]
) -> Callable[..., float]:
    def truth(a: float, b: float) -> float:
        if math.isfinite(a) and math.isfinite(b) and not (host is np.divide and b == 0):
            value = exact(Fraction(a), Fraction(b))
            if value != 0:
                return rounded(value, kind)
        with np.errstate(all="ignore"):
            return float(host(np.float64(a), np.float64(b)))

    return truth


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize(
    ("name", "exact", "host"),
    [
        ("add", lambda a, b: a + b, np.add),
        ("sub", lambda a, b: a - b, np.subtract),
        ("mul", lambda a, b: a * b, np.multiply),
        ("div", lambda a, b: a / b, np.divide),
    ],
)
def test_sums_products_and_quotients(name: str, exact: Any, host: Any, kind: str) -> None:
    a, b = all_edges(kind, 2)
    truth = two(kind, exact, host)
    assert_same(
        results(f"{name}.rn.{kind}", [kind] * 3, [a, b]),
        [truth(x, y) for x, y in zip(doubles(a), doubles(b), strict=True)],
        kind,
    )


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_reciprocals_and_roots(kind: str) -> None:
    (a,) = all_edges(kind, 1)
    reciprocal = two(kind, lambda x, y: x / y, np.divide)
    assert_same(results(f"rcp.rn.{kind}", [kind] * 2, [a]), [reciprocal(1.0, x) for x in doubles(a)], kind)
    roots = results(f"sqrt.rn.{kind}", [kind] * 2, [a]).view(REAL[kind])
    for x, root in zip(doubles(a), roots, strict=True):
        if math.isfinite(x) and x > 0:
            below, above = (Fraction(float(np.nextafter(root, REAL[kind](side)))) for side in (0, math.inf))
            exact, middle = Fraction(float(x)), Fraction(float(root))
            assert ((below + middle) / 2) ** 2 <= exact <= ((above + middle) / 2) ** 2
        else:
            assert root == x or (math.isnan(root) and not x >= 0)


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_the_smaller_and_the_larger_of_two(kind: str) -> None:
    """A NaN loses, unless .NaN is there; -0 is below 0."""
    a, b = all_edges(kind, 2)

    def truth(x: float, y: float, sign: int, wins: bool) -> float:
        if x != x or y != y:
            return math.nan if wins or (x != x and y != y) else (y if x != x else x)
        order = (x, math.copysign(1, x)), (y, math.copysign(1, y))
        return (min(order) if sign < 0 else max(order))[0]

    for name, sign in (("min", -1), ("max", 1)):
        for suffix, wins in (("", False), (".NaN", True)) if kind == "f32" else (("", False),):
            want = [truth(x, y, sign, wins) for x, y in zip(doubles(a), doubles(b), strict=True)]
            assert_same(results(f"{name}{suffix}.{kind}", [kind] * 3, [a, b]), want, kind)


def test_subnormal_numbers_are_zeros_only_where_ftz_says_so() -> None:
    tiny = np.array([1, 0x807FFFFF, 0x00800000], np.uint32).view(np.float32)
    half = np.full(3, 0.5, np.float32)
    assert results("mul.rn.f32", ["f32"] * 3, [tiny, half]).tolist() == [0, 0x80400000, 0x00400000]
    assert results("mul.rn.ftz.f32", ["f32"] * 3, [tiny, half]).tolist() == [0, 0x80000000, 0]
    assert results("fma.rn.ftz.f32", ["f32"] * 4, [tiny, half, tiny]).tolist() == [0, 0x80000000, 0x00C00000]


def test_sat_cuts_to_between_0_and_1() -> None:
    x = np.array([-1, -0.0, 0.25, 2, math.inf, math.nan], np.float32)
    one = np.ones(6, np.float32)
    assert results("mul.rn.sat.f32", ["f32"] * 3, [x, one]).view(np.float32).tolist() == [0, 0, 0.25, 1, 1, 0]


@pytest.mark.parametrize(
    "compare", ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"]
)
def test_comparisons_of_numbers_and_nan(compare: str) -> None:
    a, b = all_edges("f32", 2)
    nan = (a != a) | (b != b)
    if compare in ("num", "nan"):
        want = nan == (compare == "nan")
    else:
        order = {"eq": a == b, "ne": a != b, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}[compare[:2]]
        want = np.where(nan, compare.endswith("u") and len(compare) == 3, order)
    assert (results(f"setp.{compare}.f32", ["pred", "f32", "f32"], [a, b]) == want).all()
