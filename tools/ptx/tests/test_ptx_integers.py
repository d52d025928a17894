"""The interpreter's integer instructions against Python's integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ptx import PtxError, UnsupportedError
from ptx.tests.exact import Array
from ptx.tests.one_instruction import bits, results


def signed(x: int, width: int) -> int:
    x %= 2**width
    return x - 2**width if x >= 2 ** (width - 1) else x


def value(x: int, kind: str) -> int:
    return signed(x, bits(kind)) if kind[0] == "s" else x


def some(width: int, seed: int, n: int = 300) -> list[int]:
    half, whole = 2 ** (width - 1), 2**width
    random = np.random.default_rng(seed).integers(0, whole, n, dtype=np.uint64).tolist()
    edges = [0, 1, 2, 3, 255, 256, half - 1, half, half + 1, whole - 2, whole - 1]
    return edges + [x >> (i % width) for i, x in enumerate(random)]


def pairs(width: int) -> list[tuple[int, int]]:
    edges = some(width, 0, 0)
    return [(a, b) for a in edges for b in edges] + list(zip(some(width, 1), some(width, 2)[::-1], strict=True))


def column(values: list[int], width: int) -> Array:
    return np.array([v % 2**width for v in values], f"u{width // 8}")


def toward_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


TWO: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul.lo": lambda a, b: a * b,
    "min": min,
    "max": max,
}


@pytest.mark.parametrize("kind", ["s16", "u16", "s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("name", [*TWO, "mul.hi", "mul.wide", "div", "rem"])
def test_arithmetic_of_two(name: str, kind: str) -> None:
    width = bits(kind)
    if name == "mul.wide" and width == 64:
        width = 32
        kind = kind[0] + "32"
    both = [(a, b) for a, b in pairs(width) if b or name not in ("div", "rem")]
    formulas: dict[str, Callable[[int, int], int]] = {
        **TWO,
        "mul.hi": lambda a, b: (a * b) >> width,
        "mul.wide": lambda a, b: a * b,
        "div": toward_zero,
        "rem": lambda a, b: a - b * toward_zero(a, b),
    }
    out = f"b{width * 2}" if name == "mul.wide" else kind
    got = results(f"{name}.{kind}", [out, kind, kind], [column([p[i] for p in both], width) for i in (0, 1)])
    want = column([formulas[name](value(a, kind), value(b, kind)) for a, b in both], bits(out))
    assert (got == want).all()


@pytest.mark.parametrize("kind", ["s32", "u32", "s64"])
def test_a_product_and_a_sum(kind: str) -> None:
    width = bits(kind)
    a, b, c = some(width, 3), some(width, 4), some(width, 5)
    rows = list(zip(a, b, c, strict=True))
    three = [column(x, width) for x in (a, b, c)]
    low = column([value(x, kind) * value(y, kind) + z for x, y, z in rows], width)
    assert (results(f"mad.lo.{kind}", [kind] * 4, three) == low).all()
    high = column([(value(x, kind) * value(y, kind) >> width) + z for x, y, z in rows], width)
    assert (results(f"mad.hi.{kind}", [kind] * 4, three) == high).all()
    if width == 32:
        wide = [column(a, 32), column(b, 32), column([x << 13 for x in c], 64)]
        want = column([value(x, kind) * value(y, kind) + (z << 13) for x, y, z in rows], 64)
        assert (results(f"mad.wide.{kind}", ["b64", kind, kind, "b64"], wide) == want).all()


@pytest.mark.parametrize("width", [16, 32, 64])
def test_logic_and_shifts(width: int) -> None:
    a, b = ([p[i] for p in pairs(width)] for i in (0, 1))
    columns = [column(a, width), column(b, width)]
    logic: dict[str, Callable[[int, int], int]] = {"and": int.__and__, "or": int.__or__, "xor": int.__xor__}
    for name, formula in logic.items():
        got = results(f"{name}.b{width}", [f"b{width}"] * 3, columns)
        assert (got == column([formula(x, y) for x, y in zip(a, b, strict=True)], width)).all()
    amounts = [y % 100 for y in b]
    shifts: dict[str, Callable[[int, int], int]] = {
        "shl.b": lambda x, n: x << n,
        "shr.u": lambda x, n: x >> n,
        "shr.s": lambda x, n: signed(x, width) >> n,
    }
    for name, shift in shifts.items():
        got = results(f"{name}{width}", [f"b{width}", f"b{width}", "u32"], [columns[0], column(amounts, 32)])
        assert (got == column([shift(x, n) for x, n in zip(a, amounts, strict=True)], width)).all()


@pytest.mark.parametrize("width", [32, 64])
def test_counts_of_bits_and_their_order(width: int) -> None:
    a = some(width, 6)
    kind, x = f"b{width}", column(a, width)
    assert results(f"popc.{kind}", ["u32", kind], [x]).tolist() == [v.bit_count() for v in a]
    assert results(f"clz.{kind}", ["u32", kind], [x]).tolist() == [width - v.bit_length() for v in a]
    assert results(f"brev.{kind}", [kind, kind], [x]).tolist() == [int(f"{v:0{width}b}"[::-1], 2) for v in a]
    assert results(f"not.{kind}", [kind, kind], [x]).tolist() == [2**width - 1 - v for v in a]
    assert results(f"neg.s{width}", [kind, kind], [x]).tolist() == [-v % 2**width for v in a]
    assert results(f"abs.s{width}", [kind, kind], [x]).tolist() == [abs(signed(v, width)) for v in a]
    assert results(f"bfind.u{width}", ["u32", kind], [x]).tolist() == [(v.bit_length() - 1) % 2**32 for v in a]
    tops = [(s if (s := signed(v, width)) >= 0 else ~s).bit_length() - 1 for v in a]
    assert results(f"bfind.s{width}", ["u32", kind], [x]).tolist() == [top % 2**32 for top in tops]


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_bit_fields(kind: str) -> None:
    width = bits(kind)
    random = np.random.default_rng(7)
    a, b = some(width, 8), some(width, 9)
    position, length = (random.integers(0, 80, len(a)).tolist() for _ in range(2))
    position[:3], length[:3] = [0, 255, 31], [width, 255, 1]

    def extracted(x: int, start: int, n: int) -> int:
        text = [x >> i & 1 for i in range(width)]
        sign = text[min(start + n - 1, width - 1)] if kind[0] == "s" and n else 0
        return sum((text[start + i] if i < n and start + i < width else sign) << i for i in range(width))

    def inserted(x: int, y: int, start: int, n: int) -> int:
        text = [y >> i & 1 for i in range(width)]
        for i in range(n):
            if start + i < width:
                text[start + i] = x >> i & 1
        return sum(bit << i for i, bit in enumerate(text))

    where = [column(position, 32), column(length, 32)]
    got = results(f"bfe.{kind}", [kind, kind, "u32", "u32"], [column(a, width), *where])
    assert got.tolist() == [extracted(*row) for row in zip(a, position, length, strict=True)]
    if kind[0] == "u":
        got = results(f"bfi.b{width}", [kind, kind, kind, "u32", "u32"], [column(a, width), column(b, width), *where])
        assert got.tolist() == [inserted(*row) for row in zip(a, b, position, length, strict=True)]


def logic_3(table: int, *three: int) -> int:
    rows = (sum((x >> i & 1) << (2 - j) for j, x in enumerate(three)) for i in range(32))
    return sum((table >> row & 1) << i for i, row in enumerate(rows))


def test_bytes_bits_and_pairs_of_words() -> None:
    a, b, c = some(32, 10), some(32, 11), some(32, 12)
    three = [column(x, 32) for x in (a, b, c)]

    def permuted(x: int, y: int, selector: int) -> int:
        result = 0
        for i in range(4):
            nibble = selector >> 4 * i & 15
            byte = (y << 32 | x) >> 8 * (nibble & 7) & 255
            result |= ((255 if byte & 128 else 0) if nibble & 8 else byte) << 8 * i
        return result

    assert results("prmt.b32", ["b32"] * 4, three).tolist() == [permuted(*row) for row in zip(a, b, c, strict=True)]
    for table in (0x80, 0xFE, 0x96, 0xCA, 0x1D, 0):
        want = [logic_3(table, *row) for row in zip(a, b, c, strict=True)]
        assert results("lop3.b32", ["b32"] * 4, three, f", {table:#x}").tolist() == want
    for mode in ("wrap", "clamp"):
        for direction in "lr":
            want = []
            for low, high, n in zip(a, b, c, strict=True):
                pair, n = high << 32 | low, n % 32 if mode == "wrap" else min(n, 32)
                want.append((pair << n >> 32 if direction == "l" else pair >> n) % 2**32)
            assert results(f"shf.{direction}.{mode}.b32", ["b32"] * 4, three).tolist() == want


@pytest.mark.parametrize("kind", ["s32", "u32", "s64", "u16"])
@pytest.mark.parametrize("compare", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons_and_selections(kind: str, compare: str) -> None:
    width = bits(kind)
    a, b = ([p[i] for p in pairs(width)] for i in (0, 1))
    want = [getattr(value(x, kind), f"__{compare}__")(value(y, kind)) for x, y in zip(a, b, strict=True)]
    columns = [column(a, width), column(b, width)]
    got = results(f"setp.{compare}.{kind}", ["pred", kind, kind], columns)
    assert got.tolist() == want
    other = np.resize(np.array([0, 1, 1], np.uint8), len(a))
    both = results(f"setp.{compare}.xor.{kind}", ["pred", kind, kind, "pred"], [*columns, other])
    assert both.tolist() == (np.array(want) ^ other.astype(bool)).tolist()
    chosen = results(f"selp.b{width}", [kind, kind, kind, "pred"], [*columns, got])
    assert chosen.tolist() == [x if w else y for x, y, w in zip(a, b, want, strict=True)]


@pytest.mark.parametrize("to", ["u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"])
@pytest.mark.parametrize("kind", ["u16", "s16", "u32", "s32", "u64", "s64"])
def test_conversions_cut_or_clamp_and_extend(to: str, kind: str) -> None:
    width, a = int(to[1:]), some(bits(kind), 13)
    register = f"b{max(width, 16)}"
    low, high = (0, 2**width - 1) if to[0] == "u" else (-(2 ** (width - 1)), 2 ** (width - 1) - 1)
    x = column(a, bits(kind))
    cut = [value(v, kind) % 2**width for v in a]
    want = [(signed(v, width) if to[0] == "s" else v) for v in cut]
    assert (results(f"cvt.{to}.{kind}", [register, kind], [x]) == column(want, bits(register))).all()
    clamped = [min(max(value(v, kind), low), high) for v in a]
    assert (results(f"cvt.sat.{to}.{kind}", [register, kind], [x]) == column(clamped, bits(register))).all()


def test_division_by_zero_is_an_error() -> None:

    with pytest.raises(PtxError, match=r"divided by zero .*div\.s32"):
        results("div.s32", ["s32"] * 3, [np.ones(2, np.uint32), np.array([1, 0], np.uint32)])


@pytest.mark.parametrize("opcode", ["mul24.lo.s32", "add.cc.u32", "add.rz.f32", "ex2.approx.f32", "cvt.rz.f32.f64"])
def test_an_unknown_instruction_is_named(opcode: str) -> None:

    kinds: dict[str, Any] = {"ex2.approx.f32": ["f32", "f32"], "cvt.rz.f32.f64": ["f32", "f64"]}
    of = kinds.get(opcode, ["b32"] * 3)
    inputs = [np.zeros(1, f"u{bits(kind) // 8}") for kind in of[1:]]
    with pytest.raises(UnsupportedError, match=opcode.replace(".", r"\.")):
        results(opcode, of, inputs)
