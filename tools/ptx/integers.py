"""Integer instructions over numpy arrays, after the pseudo-code of the PTX ISA."""

from __future__ import annotations

import numpy as np

from ptx.errors import PtxError
from ptx.types import Array, unsigned


def _bits(a: Array) -> int:
    return a.dtype.itemsize * 8


def _unsigned(a: Array) -> Array:
    return np.asarray(a.view(unsigned(a.dtype.itemsize)))


def multiply_high(a: Array, b: Array) -> Array:
    """The upper half of the product."""
    a, b = (np.ascontiguousarray(x) for x in np.broadcast_arrays(a, b))
    if _bits(a) < 64:
        wide = np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
        return np.asarray(((a.astype(wide) * b.astype(wide)) >> wide.type(_bits(a))).astype(a.dtype))
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    x, y = a.view(np.uint64), b.view(np.uint64)
    x_high, x_low, y_high, y_low = x >> half, x & low, y >> half, y & low
    first = x_high * y_low + ((x_low * y_low) >> half)
    second = x_low * y_high + (first & low)
    high = x_high * y_high + (first >> half) + (second >> half)
    if a.dtype.kind == "i":
        high = high - np.where(a < 0, y, np.uint64(0)) - np.where(b < 0, x, np.uint64(0))
    return np.asarray(high.view(a.dtype))


def multiply_wide(a: Array, b: Array) -> Array:
    """The whole product, in the type of twice the size."""
    wide = np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
    return np.asarray(a.astype(wide) * b.astype(wide))


def _check_divisor(b: Array) -> None:
    if (b == 0).any():
        raise PtxError("an integer is divided by zero")


def divide(a: Array, b: Array) -> Array:
    """Rounded towards zero."""
    _check_divisor(b)
    return np.asarray((a - np.fmod(a, b)) // b)


def remainder(a: Array, b: Array) -> Array:
    """Of the sign of a."""
    _check_divisor(b)
    return np.asarray(np.fmod(a, b))


def shift_left(a: Array, n: Array) -> Array:
    """Zero from shifts of the whole width on."""
    last = np.uint32(_bits(a) - 1)
    return np.asarray(np.where(n > last, a.dtype.type(0), a << np.minimum(n, last).astype(a.dtype)))


def shift_right(a: Array, n: Array) -> Array:
    """Zero, or the sign, from shifts of the whole width on."""
    last = np.uint32(_bits(a) - 1)
    shifted = a >> np.minimum(n, last).astype(a.dtype)
    return np.asarray(shifted if a.dtype.kind == "i" else np.where(n > last, a.dtype.type(0), shifted))


def funnel_shift(low: Array, high: Array, n: Array, left: bool, clamp: bool) -> Array:
    """32 bits of high:low, shifted."""
    pair = (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)
    n = (np.minimum(n, np.uint32(32)) if clamp else n & np.uint32(31)).astype(np.uint64)
    return np.asarray(((pair << n) >> np.uint64(32) if left else pair >> n).astype(np.uint32))


def bit_field_extract(a: Array, position: Array, length: Array) -> Array:
    """Bits of a from a position, extended with zeros or, of a signed type, with the last of them."""
    size = _bits(a)
    u = np.uint64
    position, length = (position & np.uint32(0xFF)).astype(u), (length & np.uint32(0xFF)).astype(u)
    bits = _unsigned(np.ascontiguousarray(a)).astype(u)
    there = np.minimum(length, np.where(position < size, u(size) - np.minimum(position, u(size)), u(0)))
    mask = np.where(there >= 64, ~u(0), (u(1) << np.minimum(there, u(63))) - u(1))
    field = (bits >> np.minimum(position, u(63))) & mask
    if a.dtype.kind == "i":
        last = np.minimum(position + length - u(1), u(size - 1))
        negative = (length != 0) & ((bits >> last) & u(1) == 1)
        field = np.where(negative, field | ~mask, field)
    return np.asarray(field.astype(unsigned(a.dtype.itemsize)).view(a.dtype))


def bit_field_insert(a: Array, b: Array, position: Array, length: Array) -> Array:
    """The low bits of a in place of bits of b."""
    size, u = _bits(b), np.uint64
    position, length = (position & np.uint32(0xFF)).astype(u), (length & np.uint32(0xFF)).astype(u)
    mask = np.where(length >= 64, ~u(0), (u(1) << np.minimum(length, u(63))) - u(1))
    mask = np.where(position < size, mask << np.minimum(position, u(63)), u(0))
    moved = a.astype(u) << np.minimum(position, u(63))
    return ((b.astype(u) & ~mask) | (moved & mask)).astype(b.dtype)


def permute(a: Array, b: Array, selector: Array) -> Array:
    """`prmt.b32`: each nibble of the selector takes a byte of b:a, or of its upper bit eight copies."""
    pair = (b.astype(np.uint64) << np.uint64(32)) | a.astype(np.uint64)
    result = np.zeros(1, np.uint32)
    for i in range(4):
        nibble = (selector >> np.uint32(4 * i)) & np.uint32(15)
        byte = (pair >> (np.uint64(8) * (nibble & np.uint32(7)).astype(np.uint64))).astype(np.uint32) & np.uint32(255)
        sign = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
        result = result | (np.where(nibble & np.uint32(8), sign, byte) << np.uint32(8 * i))
    return result


def logic_3(a: Array, b: Array, c: Array, table: int) -> Array:
    """`lop3.b32`: bit 4 a + 2 b + c of the table."""
    result = np.zeros(1, np.uint32)
    for i in range(8):
        if table >> i & 1:
            result = result | ((a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c))
    return result


def _bit_rows(a: Array) -> Array:
    """The bits of each number, the highest first."""
    rows = np.ascontiguousarray(a).astype(a.dtype.newbyteorder(">")).view(np.uint8).reshape(len(a), -1)
    return np.unpackbits(rows, axis=1)


def population_count(a: Array) -> Array:
    return np.asarray(_bit_rows(a).sum(axis=1, dtype=np.uint32))


def count_leading_zeros(a: Array) -> Array:
    rows = _bit_rows(a)
    return np.asarray(np.where(rows.any(axis=1), rows.argmax(axis=1), rows.shape[1]).astype(np.uint32))


def reverse_bits(a: Array) -> Array:
    rows = np.packbits(_bit_rows(a)[:, ::-1], axis=1)
    return np.asarray(rows.view(a.dtype.newbyteorder(">")).reshape(-1).astype(a.dtype))


def find_leading(a: Array) -> Array:
    """`bfind`: where the highest bit is that differs from the sign, all ones for none."""
    bits = np.where(a < 0, ~a, a) if a.dtype.kind == "i" else a
    zeros = count_leading_zeros(bits)
    return np.where(zeros == _bits(a), np.uint32(0xFFFFFFFF), np.uint32(_bits(a) - 1) - zeros)
