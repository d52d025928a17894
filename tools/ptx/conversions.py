"""`cvt`: from one type to another."""

from __future__ import annotations

from functools import partial

import numpy as np

from ptx import floats
from ptx.arithmetic import apply, modifiers
from ptx.errors import UnsupportedError
from ptx.machine import Machine
from ptx.syntax import Function, Instruction
from ptx.types import DTYPES, Array, Run


def _rounded(kind: str, values: Array) -> Array:
    if kind == "f16":
        return floats.to_float16(values)
    if kind == "bf16":
        return floats.to_bfloat16(values)
    with np.errstate(all="ignore"):
        values = values.astype(DTYPES[kind])
    return floats.canonical(values) if kind == "f32" else values


def _widened(kind: str, values: Array) -> Array:
    if kind == "bf16":
        return floats.from_bfloat16(values)
    return floats.canonical(values.astype(np.float32)) if kind == "f16" else values


def _float_to_integer(values: Array, to: str, kind: str, rounding: str) -> Array:
    whole = floats.to_integer(values.astype(np.float64), to, rounding)
    bits = int(to[1:])
    nan = DTYPES["u" + to[1:]].type(2 ** (bits - 1) if kind == "f64" or bits == 64 else 0).view(whole.dtype)
    return np.where(values == values, whole, nan)


def _two_rounded(kind: str, upper: Array, lower: Array) -> Array:
    first, second = (_rounded(kind, x).view(np.uint16).astype(np.uint32) for x in (upper, lower))
    return np.asarray((first << np.uint32(16)) | second)


def convert(machine: Machine, function: Function, instruction: Instruction) -> Run:
    """`cvt`: integers are cut or clamped, floating-point numbers rounded once."""
    to, kind = instruction.parts[-2:]
    words = modifiers(instruction, "rn rni rzi rmi rpi ftz sat", last=-2)
    rounding = next((word for word in words if word.startswith("r")), "")
    kinds = [to, kind]
    source_is_float, result_is_float = "f" in kind, "f" in to

    def formula(values: Array) -> Array:
        if "ftz" in words and kind == "f32":
            values = floats.flushed(values)
        if not source_is_float and not result_is_float:
            if "sat" in words:
                limits = np.iinfo(DTYPES[to])
                low = max(int(limits.min), int(np.iinfo(values.dtype).min))
                high = min(int(limits.max), int(np.iinfo(values.dtype).max))
                values = np.clip(values, values.dtype.type(low), values.dtype.type(high))
            return values.astype(DTYPES[to])
        if not source_is_float:
            return _rounded(to, values if to in ("f32", "f64") else values.astype(np.float64))
        values = _widened(kind, values)
        if not result_is_float:
            return _float_to_integer(values, to, kind, rounding)
        if rounding.endswith("i"):
            whole = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[rounding](values)
            values = np.copysign(whole, values)
        values = floats.flushed(values) if "ftz" in words and to == "f32" else values
        return _rounded(to, floats.saturated(values) if "sat" in words else values)

    if to in ("f16x2", "bf16x2"):
        return apply(machine, function, instruction, partial(_two_rounded, to[:-2]), ["b32", "f32", "f32"])
    needs_rounding = (source_is_float and not result_is_float and not rounding.endswith("i")) or (
        result_is_float and rounding != "rn" and (not source_is_float or DTYPES[to].itemsize < DTYPES[kind].itemsize)
    )
    if needs_rounding or (not source_is_float and kind[0] == "b"):
        raise UnsupportedError(f"the rounding of {instruction}")
    return apply(machine, function, instruction, formula, kinds)


TABLE = {"cvt": convert}
