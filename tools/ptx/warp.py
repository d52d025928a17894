"""Instructions that the lanes of a warp execute together.

The scheduler starts one when all lanes that its mask names have come (those that have ended do not count); only what
such lanes hold may be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ptx.arithmetic import modifiers
from ptx.errors import PtxError, UnsupportedError
from ptx.machine import Machine
from ptx.syntax import Function, Group, Instruction, Operand
from ptx.types import WARP, Array, Index, Run, Source

WAITING = ("shfl", "vote", "redux")


def is_collective(instruction: Instruction) -> bool:
    """Does it wait for the lanes that its last operand names?"""
    return instruction.name in WAITING or instruction.opcode == "bar.warp.sync"


def mask_of(machine: Machine, function: Function, instruction: Instruction) -> Source:
    if instruction.guard or (instruction.name != "bar" and "sync" not in instruction.parts):
        raise UnsupportedError(f"a guard, or no .sync: {instruction}")
    return machine.source(function, instruction, instruction.operands[-1], "b32")


def shuffle(machine: Machine, function: Function, instruction: Instruction) -> Run:
    words = modifiers(instruction, "sync up down bfly idx")
    result = instruction.operands[0]
    items: tuple[Operand, ...] = result.items if isinstance(result, Group) else (result,)
    write = machine.sink(function, instruction, items[0], "b32")
    write_inside = machine.sink(function, instruction, items[1], "pred") if len(items) == 2 else None
    value, step, limits = (
        machine.source(function, instruction, o, k)
        for o, k in zip(instruction.operands[1:4], ("b32", "s32", "s32"), strict=True)
    )

    def run(at: Index) -> None:
        threads = machine.threads[at]
        lanes = threads % WARP
        by = np.broadcast_to(step(at), threads.shape).astype(np.int64) & 31
        limit = limits(at).astype(np.int64)
        clamp, segment = limit & 31, (limit >> 8) & 31
        first, last = lanes & segment, (lanes & segment) | (clamp & ~segment)
        if "up" in words:
            other = lanes - by
            inside = other >= last
        else:
            other = lanes + by if "down" in words else lanes ^ by if "bfly" in words else first | (by & ~segment)
            inside = other <= last
        source = threads - lanes + np.where(inside, other, lanes)
        held = np.zeros(machine.n_threads + WARP, np.uint32)
        here = np.zeros(machine.n_threads + WARP, bool)
        held[threads], here[threads] = value(at), True
        if not here[source].all():
            bad = int(np.flatnonzero(~here[source])[0])
            raise PtxError(
                f"thread {threads[bad]} takes a value from lane {source[bad] % WARP}, which does not take part"
            )
        write(at, held[source])
        if write_inside:
            write_inside(at, inside)

    return run


def _companies(machine: Machine, at: Index, masks: Array) -> Iterator[tuple[Array, Array]]:
    """The threads that act together: of one warp, with one mask. Which of those at hand, and their numbers."""
    threads = machine.threads[at]
    keys = (threads // WARP << 32) + np.broadcast_to(masks, threads.shape)
    for key in np.unique(keys):
        here = np.flatnonzero(keys == key)
        yield here, threads[here]


def _ballot(lanes: Array) -> int:
    return int((1 << (lanes % WARP)).sum())


def vote(machine: Machine, function: Function, instruction: Instruction) -> Run:
    words = modifiers(instruction, "sync any all uni ballot")
    ballot = "ballot" in words
    write = machine.sink(function, instruction, instruction.operands[0], "b32" if ballot else "pred")
    truth = machine.source(function, instruction, instruction.operands[1], "pred")
    mask = mask_of(machine, function, instruction)

    def run(at: Index) -> None:
        votes = np.broadcast_to(truth(at), machine.threads[at].shape)
        results = np.empty(len(votes), np.uint32 if ballot else bool)
        for here, threads in _companies(machine, at, mask(at)):
            yes = votes[here]
            if ballot:
                results[here] = _ballot(threads[yes])
            else:
                results[here] = (
                    yes.any() if "any" in words else yes.all() if "all" in words else yes.all() or not yes.any()
                )
        write(at, results)

    return run


def reduce(machine: Machine, function: Function, instruction: Instruction) -> Run:
    """`redux.sync`."""
    kind = instruction.parts[-1]
    formulas = {
        "add": np.add,
        "min": np.minimum,
        "max": np.maximum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
    }
    words = modifiers(instruction, "sync " + " ".join(formulas))
    formula = next(formulas[word] for word in words if word in formulas)
    write = machine.sink(function, instruction, instruction.operands[0], kind)
    value = machine.source(function, instruction, instruction.operands[1], kind)
    mask = mask_of(machine, function, instruction)

    def run(at: Index) -> None:
        values = np.array(np.broadcast_to(value(at), machine.threads[at].shape))
        results = np.empty_like(values)
        for here, _ in _companies(machine, at, mask(at)):
            results[here] = formula.reduce(values[here])
        write(at, results)

    return run


def active_mask(machine: Machine, function: Function, instruction: Instruction) -> Run:
    """The lanes that are here now: others of the warp may come later."""
    write = machine.sink(function, instruction, instruction.operands[0], "b32")

    def run(at: Index) -> None:
        results = np.empty(len(machine.threads[at]), np.uint32)
        for here, threads in _companies(machine, at, np.zeros(1, np.int64)):
            results[here] = _ballot(threads)
        write(at, results)

    return run


TABLE: dict[str, Callable[[Machine, Function, Instruction], Run]] = {
    "shfl": shuffle,
    "vote": vote,
    "redux": reduce,
    "activemask": active_mask,
}
