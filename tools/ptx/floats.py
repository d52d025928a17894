"""Floating-point arithmetic with one rounding, as the hardware has it, over numpy arrays.

float32 results that are NaN are the hardware's one, 0x7fffffff. Of float64 NaNs the payload is the host's.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from ptx.types import Array

_NAN32 = np.uint32(0x7FFFFFFF)
_SPLITTER = 2.0**27 + 1


def canonical(values: Array) -> Array:
    """float32 with the hardware's NaN."""
    nan = values != values
    if nan.any():
        values = np.array(values)
        values.view(np.uint32)[nan] = _NAN32
    return values


def flushed(values: Array) -> Array:
    """`.ftz`: float32 subnormals are zeros of their sign."""
    return np.where(np.abs(values) < np.float32(2.0**-126), np.copysign(np.float32(0), values), values)


def saturated(values: Array) -> Array:
    """`.sat`: within 0 and 1, NaN is +0."""
    inside = np.clip(values, values.dtype.type(0), values.dtype.type(1)) + values.dtype.type(0)
    return np.asarray(np.where(values == values, inside, values.dtype.type(0)))


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded sum and its error, exactly."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded product and its error, exactly while nothing over- or underflows (Dekker 1971)."""
    p = a * b
    t = _SPLITTER * a
    a_high = t - (t - a)
    t = _SPLITTER * b
    b_high = t - (t - b)
    a_low, b_low = a - a_high, b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def sum_to_odd(a: Array, b: Array) -> Array:
    """a + b in float64, what is not exact rounded to the neighbour with an odd last bit: rounded again to fewer bits,
    or as a small part of a sum, it rounds as the exact sum does (Boldo, Melquiond 2008)."""
    s, error = two_sum(a, b)
    bits = np.array(s).view(np.int64)
    moved = (error != 0) & (error == error) & (np.abs(s) < math.inf) & (bits & 1 == 0)
    bits += np.where(moved, np.where((error > 0) == (s > 0), 1, -1), 0)
    return np.asarray(bits.view(np.float64))


def fma_32(a: Array, b: Array, c: Array) -> Array:
    """The product of two float32 is exact in float64."""
    with np.errstate(all="ignore"):
        product = a.astype(np.float64) * b.astype(np.float64)
        return canonical(sum_to_odd(product, c.astype(np.float64)).astype(np.float32))


def _exact_fma(a: float, b: float, c: float) -> float:
    """For finite numbers with a b != 0."""
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def fma_64(a: Array, b: Array, c: Array) -> Array:
    """Boldo and Melquiond's sum of three where no part of the product can be lost, fractions elsewhere."""
    with np.errstate(all="ignore"):
        a, b, c = np.broadcast_arrays(a, b, c)
        high, low = two_product(a, b)
        carried, rest = two_sum(c, low)
        top, middle = two_sum(high, carried)
        result = np.array(top + sum_to_odd(rest, middle))
        plain = a * b + c
        size = np.abs(high)
        safe = (size > 2.0**-900) & (size < 2.0**1000) & (np.abs(a) < 2.0**990) & (np.abs(b) < 2.0**990)
        safe &= np.abs(c) < 2.0**1000
        trivial = (a == 0) | (b == 0) | ~np.isfinite(a) | ~np.isfinite(b) | ~np.isfinite(c)
        result[trivial] = plain[trivial]
        for i in np.flatnonzero(~safe & ~trivial):
            result[i] = _exact_fma(float(a[i]), float(b[i]), float(c[i]))
    return result


def _extremum(a: Array, b: Array, larger: bool, nan: bool) -> Array:
    a, b = np.broadcast_arrays(a, b)
    first = (a > b) | ((a == b) & ~np.signbit(a)) if larger else (a < b) | ((a == b) & np.signbit(a))
    a_nan, b_nan = a != a, b != b
    if nan:
        return np.where(a_nan | b_nan, np.where(a_nan, a, b), np.where(first, a, b))
    return np.where(b_nan | (first & ~a_nan), a, b)


def minimum(a: Array, b: Array, nan: bool = False) -> Array:
    """-0 is below +0. A NaN loses; with `nan` (`.NaN`) it wins."""
    return _extremum(a, b, False, nan)


def maximum(a: Array, b: Array, nan: bool = False) -> Array:
    return _extremum(a, b, True, nan)


def to_bfloat16(values: Array) -> Array:
    """The bits of float32 rounded to nearest even; NaN is 0x7fff."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    return np.where(values == values, rounded, np.uint16(0x7FFF))


def from_bfloat16(bits: Array) -> Array:
    return canonical((bits.astype(np.uint32) << np.uint32(16)).view(np.float32))


def to_float16(values: Array) -> Array:
    """float32 or float64 rounded to nearest even; NaN is 0x7fff."""
    with np.errstate(all="ignore"):
        rounded = values.astype(np.float16)
    return np.where(values == values, rounded, np.uint16(0x7FFF).view(np.float16))


def to_integer(values: Array, kind: str, rounding: str) -> Array:
    """float64 (or what is exact in it) to an integer type: rounded, then clamped; NaN is told apart by the caller."""
    round_ = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[rounding]
    dtype = np.dtype(("u" if kind[0] == "u" else "i") + str(int(kind[1:]) // 8))
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    with np.errstate(all="ignore"):
        whole = round_(values)
        below, above = whole <= float(low), whole >= float(high)
        inside = np.where(below | above | (whole != whole), 0.0, whole).astype(dtype)
    return np.where(below, dtype.type(low), np.where(above, dtype.type(high), inside))
