"""The interpreter's conversions against exact arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from ptx.tests.exact import REAL, UNSIGNED, all_edges, assert_same, doubles, edges, rounded
from ptx.tests.one_instruction import results


def value_of(stored: int, kind: str) -> float:
    if kind == "f16":
        return float(np.uint16(stored).view(np.float16))
    return float(np.uint32(stored << 16 if kind == "bf16" else stored).view(np.float32))


@pytest.mark.parametrize(("to", "kind"), [("f16", "f32"), ("bf16", "f32"), ("f16", "f64"), ("f32", "f64")])
def test_conversions_to_fewer_bits_round_once(to: str, kind: str) -> None:
    random = (
        np.random.default_rng(1)
        .integers(0, 2 ** (32 if kind == "f32" else 64), 4000, dtype=np.uint64)
        .astype(UNSIGNED[kind])
    )
    close = (np.random.default_rng(2).normal(size=2000) * 1e-6).astype(REAL[kind]).view(UNSIGNED[kind])
    # Halfway between two: the bits that are lost are a one and zeros.
    lost = {"f16": 13, "bf16": 16, "f32": 0}[to] + (29 if kind == "f64" else 0)
    ties = (random >> UNSIGNED[kind](lost) << UNSIGNED[kind](lost)) | UNSIGNED[kind](1 << (lost - 1))
    near_one = (ties & UNSIGNED[kind](2**lost * 1024 - 1)) | np.ones(1, REAL[kind]).view(UNSIGNED[kind])
    x = np.concatenate([edges(kind), random, close, ties, near_one]).view(REAL[kind])
    got = results(f"cvt.rn.{to}.{kind}", [to, kind], [x])
    for value, stored in zip(doubles(x), got.tolist(), strict=True):
        read = value_of(stored, to)
        if value != value:
            assert stored == (0x7FFFFFFF if to == "f32" else 0x7FFF)
        else:
            want = rounded(Fraction(value), to) if math.isfinite(value) else value
            assert read == want
            assert math.copysign(1, read) == math.copysign(1, value)


def test_conversions_to_more_bits() -> None:
    half = np.arange(2**16, dtype=np.uint16)
    want = half.view(np.float16).astype(np.float32)
    assert_same(results("cvt.f32.f16", ["f32", "f16"], [half]), doubles(want), "f32")
    brain = results("cvt.f32.bf16", ["f32", "bf16"], [half])
    wide = (half.astype(np.uint32) << 16).view(np.float32)
    assert_same(brain, doubles(wide), "f32")
    (x,) = all_edges("f32", 1)
    assert_same(results("cvt.f64.f32", ["f64", "f32"], [x]), doubles(x), "f64")


def test_pairs_of_16_bits_have_the_first_in_the_upper_half() -> None:
    a, b = np.array([1, -2], np.float32), np.array([0.5, math.nan], np.float32)
    assert results("cvt.rn.f16x2.f32", ["b32", "f32", "f32"], [a, b]).tolist() == [0x3C003800, 0xC0007FFF]
    assert results("cvt.rn.bf16x2.f32", ["b32", "f32", "f32"], [a, b]).tolist() == [0x3F803F00, 0xC0007FFF]


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("to", ["s8", "u16", "s32", "u32", "s64", "u64"])
@pytest.mark.parametrize(
    ("mode", "round_"), [("rni", round), ("rzi", math.trunc), ("rmi", math.floor), ("rpi", math.ceil)]
)
def test_numbers_to_integers_are_clamped(kind: str, to: str, mode: str, round_: Callable[[float], int]) -> None:
    halves = (np.arange(-9, 10) / 2).astype(REAL[kind])
    x = np.concatenate([halves, edges(kind).view(REAL[kind])])
    width = int(to[1:])
    low, high = (0, 2**width - 1) if to[0] == "u" else (-(2 ** (width - 1)), 2 ** (width - 1) - 1)
    register = f"b{max(width, 16)}"
    got = results(f"cvt.{mode}.{to}.{kind}", [register, kind], [x])
    for value, stored in zip(doubles(x), got.tolist(), strict=True):
        if value != value:
            want = 2 ** (width - 1) if kind == "f64" or width == 64 else 0
            want -= 2**width if to[0] == "s" and want else 0
        else:
            want = (high if value > 0 else low) if math.isinf(value) else min(max(round_(value), low), high)
        assert stored == want % 2 ** max(width, 16)


@pytest.mark.parametrize("kind", ["u16", "s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("to", ["f32", "f64", "f16"])
def test_integers_to_numbers_round_once(kind: str, to: str) -> None:
    width = int(kind[1:])
    some = [
        0,
        1,
        2**width - 1,
        2 ** (width - 1),
        2 ** (width - 1) - 1,
        2**24 % 2**width + 1,
        (2**53 + 1) % 2**width,
        (2**54 + 3) % 2**width,
    ]
    some += np.random.default_rng(3).integers(0, 2**width, 300, dtype=np.uint64).tolist()
    got = results(f"cvt.rn.{to}.{kind}", [to, kind], [np.array(some, f"u{width // 8}")])
    signed = [x - 2**width if kind[0] == "s" and x >= 2 ** (width - 1) else x for x in some]
    assert_same(got, [rounded(Fraction(x), to) for x in signed], to)
