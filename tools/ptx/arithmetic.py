"""Instructions that compute: each is made into a function of the threads that execute it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ptx import floats, integers
from ptx.errors import UnsupportedError
from ptx.machine import Machine
from ptx.syntax import Function, Group, Instruction, Integer, Operand
from ptx.types import Array, Run

Formula = Callable[..., Array]


def modifiers(instruction: Instruction, known: str, first: int = 1, last: int = -1) -> set[str]:
    """The words of an opcode between its name and its type; one that is not known is an error."""
    words = set(instruction.parts[first:last])
    unknown = words - set(known.split())
    if unknown:
        raise UnsupportedError(f".{' .'.join(sorted(unknown))} of {instruction}")
    return words


def apply(machine: Machine, function: Function, instruction: Instruction, formula: Formula, kinds: list[str]) -> Run:
    """The result is of the first type, the operands of the others."""
    operands = instruction.operands
    if len(operands) != len(kinds):
        raise UnsupportedError(f"the number of operands of {instruction}")
    write = machine.sink(function, instruction, operands[0], kinds[0])
    reads = [machine.source(function, instruction, o, k) for o, k in zip(operands[1:], kinds[1:], strict=True)]
    if len(reads) == 1:
        first = reads[0]
        return lambda at: write(at, formula(first(at)))
    if len(reads) == 2:
        first, second = reads
        return lambda at: write(at, formula(first(at), second(at)))
    return lambda at: write(at, formula(*[read(at) for read in reads]))


def _square_root(a: Array) -> Array:
    return np.asarray(np.sqrt(a))


def _reciprocal(a: Array) -> Array:
    return np.asarray(a.dtype.type(1) / a)


_FLOAT: dict[str, tuple[Formula, int]] = {
    "add": (np.add, 2),
    "sub": (np.subtract, 2),
    "mul": (np.multiply, 2),
    "div": (np.divide, 2),
    "rcp": (_reciprocal, 1),
    "sqrt": (_square_root, 1),
    "min": (floats.minimum, 2),
    "max": (floats.maximum, 2),
}
_FLOAT_SIGN: dict[str, tuple[Formula, int]] = {
    "neg": (np.negative, 1),
    "abs": (np.abs, 1),
    "copysign": (np.copysign, 2),
}


def _with_flush(formula: Formula, words: set[str], to_canonical: bool) -> Formula:
    def run(*inputs: Array) -> Array:
        if "ftz" in words:
            inputs = tuple(floats.flushed(x) for x in inputs)
        values = formula(*inputs)
        if "ftz" in words:
            values = floats.flushed(values)
        if "sat" in words:
            values = floats.saturated(values)
        return floats.canonical(values) if to_canonical else values

    return run


def float_operation(machine: Machine, function: Function, instruction: Instruction) -> Run:
    name, kind = instruction.name, instruction.parts[-1]
    if kind not in ("f32", "f64"):
        raise UnsupportedError(f"the type of {instruction}")
    if name in _FLOAT_SIGN:
        formula, arity = _FLOAT_SIGN[name]
        words = modifiers(instruction, "ftz")
        made = _with_flush(formula, words, False) if words else formula
        # copysign takes the sign of its first operand.
        return apply(
            machine,
            function,
            instruction,
            (lambda a, b: made(b, a)) if name == "copysign" else made,
            [kind] * (arity + 1),
        )
    words = modifiers(instruction, "rn ftz sat NaN" if name in ("add", "sub", "mul", "fma", "min", "max") else "rn ftz")
    if name in ("div", "rcp", "sqrt", "fma") and "rn" not in words:
        raise UnsupportedError(f"the rounding of {instruction}")
    if name in ("fma", "mad"):
        formula, arity = (floats.fma_32 if kind == "f32" else floats.fma_64), 3
    else:
        formula, arity = _FLOAT[name]
        if "NaN" in words:
            formula = partial(formula, nan=True)
    if kind == "f32" or words & {"ftz", "sat"}:
        formula = _with_flush(formula, words, kind == "f32")
    return apply(machine, function, instruction, formula, [kind] * (arity + 1))


def _multiply(instruction: Instruction, kind: str) -> tuple[Formula, str]:
    words = modifiers(instruction, "lo hi wide")
    if "wide" in words:
        return integers.multiply_wide, f"{kind[0]}{int(kind[1:]) * 2}"
    return (integers.multiply_high if "hi" in words else np.multiply), kind


def _integer_product(machine: Machine, function: Function, instruction: Instruction) -> Run:
    kind = instruction.parts[-1]
    product, result = _multiply(instruction, kind)
    if instruction.name == "mul":
        return apply(machine, function, instruction, product, [result, kind, kind])
    return apply(machine, function, instruction, lambda a, b, c: product(a, b) + c, [result, kind, kind, result])


_INTEGER: dict[str, tuple[Formula, int]] = {
    "add": (np.add, 2),
    "sub": (np.subtract, 2),
    "div": (integers.divide, 2),
    "rem": (integers.remainder, 2),
    "min": (np.minimum, 2),
    "max": (np.maximum, 2),
    "neg": (np.negative, 1),
    "abs": (np.abs, 1),
    "and": (np.bitwise_and, 2),
    "or": (np.bitwise_or, 2),
    "xor": (np.bitwise_xor, 2),
    "not": (np.invert, 1),
    "brev": (integers.reverse_bits, 1),
}


def integer_operation(machine: Machine, function: Function, instruction: Instruction) -> Run:
    name, kind = instruction.name, instruction.parts[-1]
    if name in ("mul", "mad"):
        return _integer_product(machine, function, instruction)
    modifiers(instruction, "")
    simple: dict[str, tuple[Formula, list[str]]] = {
        "shl": (integers.shift_left, [kind, kind, "u32"]),
        "shr": (integers.shift_right, [kind, kind, "u32"]),
        "bfe": (integers.bit_field_extract, [kind, kind, "u32", "u32"]),
        "bfi": (integers.bit_field_insert, [kind, kind, kind, "u32", "u32"]),
        "prmt": (integers.permute, [kind, kind, kind, "u32"]),
        "popc": (integers.population_count, ["u32", kind]),
        "clz": (integers.count_leading_zeros, ["u32", kind]),
        "bfind": (integers.find_leading, ["u32", kind]),
        "cnot": (lambda a: (a == 0).astype(a.dtype), [kind, kind]),
    }
    if name in simple:
        formula, kinds = simple[name]
    else:
        formula, arity = _INTEGER[name]
        kinds = [kind] * (arity + 1)
    return apply(machine, function, instruction, formula, kinds)


def operation(machine: Machine, function: Function, instruction: Instruction) -> Run:
    """Those names that stand for floating-point and for integer instructions."""
    is_float = instruction.parts[-1].startswith("f") or "bf16" in instruction.parts[-1]
    return (float_operation if is_float else integer_operation)(machine, function, instruction)


def funnel_shift(machine: Machine, function: Function, instruction: Instruction) -> Run:
    words = modifiers(instruction, "l r wrap clamp")
    formula = partial(integers.funnel_shift, left="l" in words, clamp="clamp" in words)
    return apply(machine, function, instruction, formula, ["u32"] * 4)


def logic_3(machine: Machine, function: Function, instruction: Instruction) -> Run:
    modifiers(instruction, "")
    *others, table = instruction.operands
    if not isinstance(table, Integer):
        raise UnsupportedError(f"the table of {instruction}")
    shorter = Instruction(instruction.opcode, "", None, instruction.line, instruction.scope)
    shorter.operands = others
    return apply(machine, function, shorter, partial(integers.logic_3, table=table.value), ["b32"] * 4)


_COMPARE: dict[str, Callable[[Array, Array], Any]] = {
    "eq": np.equal,
    "ne": lambda a, b: (a != b) & (a == a) & (b == b),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
    "num": lambda a, b: (a == a) & (b == b),
    "nan": lambda a, b: (a != a) | (b != b),
    "equ": lambda a, b: ~((a < b) | (a > b)),
    "neu": np.not_equal,
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
}
_LOGIC: dict[str, Callable[[Array, Array], Any]] = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


def set_predicate(machine: Machine, function: Function, instruction: Instruction) -> Run:
    """`setp.compare[.bool].type p[|q], a, b[, c]`: p = (a ? b) bool c, q = not (a ? b) bool c."""
    compare, kind = instruction.parts[1], instruction.parts[-1]
    words = modifiers(instruction, "and or xor ftz", first=2)
    if compare not in _COMPARE or kind == "bf16":
        raise UnsupportedError(f"the comparison of {instruction}")
    operands = instruction.operands
    results: tuple[Operand, ...] = operands[0].items if isinstance(operands[0], Group) else (operands[0],)
    writes = [machine.sink(function, instruction, result, "pred") for result in results]
    first, second = (machine.source(function, instruction, o, kind) for o in operands[1:3])
    logic = [_LOGIC[word] for word in words if word in _LOGIC]
    third = machine.source(function, instruction, operands[3], "pred") if logic else None

    def run(at: slice | Array) -> None:
        a, b = first(at), second(at)
        if "ftz" in words:
            a, b = floats.flushed(a), floats.flushed(b)
        truth = np.asarray(_COMPARE[compare](a, b))
        other = third(at) if third else None
        for write, value in zip(writes, (truth, ~truth), strict=False):
            write(at, value if other is None else logic[0](value, other))

    return run


def _either(a: Array, b: Array, truth: Array) -> Array:
    return np.asarray(np.where(truth, a, b))


def select(machine: Machine, function: Function, instruction: Instruction) -> Run:
    modifiers(instruction, "")
    kind = "b" + instruction.parts[-1].lstrip("busf")
    return apply(machine, function, instruction, _either, [kind, kind, kind, "pred"])


def classify(machine: Machine, function: Function, instruction: Instruction) -> Run:
    """`testp`."""
    tests: dict[str, Formula] = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "notanumber": np.isnan,
        "number": lambda a: ~np.isnan(a),
    }
    what, kind = instruction.parts[1:]
    if what not in tests:
        raise UnsupportedError(str(instruction))
    return apply(machine, function, instruction, tests[what], ["pred", kind])


_NAMES = "add sub mul mad div rem min max neg abs and or xor not shl shr bfe bfi prmt popc clz brev bfind cnot"
TABLE: dict[str, Callable[[Machine, Function, Instruction], Run]] = {
    **dict.fromkeys(_NAMES.split(), operation),
    **dict.fromkeys(("fma", "rcp", "sqrt", "copysign"), float_operation),
    "shf": funnel_shift,
    "lop3": logic_3,
    "setp": set_predicate,
    "selp": select,
    "testp": classify,
}
