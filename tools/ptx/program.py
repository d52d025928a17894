"""The functions of a module as straight pieces of code between branches, and what leads from one to another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ptx import arithmetic, conversions, transfers, warp
from ptx.errors import PtxError, UnsupportedError
from ptx.machine import Machine
from ptx.syntax import Function, Group, Instruction, Integer, Module, Name, Operand
from ptx.types import Index, Run, Source

# Added to the number of a piece in a thread's pc.
AT_BARRIER, AT_COLLECTIVE, ENDED = 1 << 40, 1 << 41, 1 << 50

_BUILD = {**arithmetic.TABLE, **conversions.TABLE, **transfers.TABLE, **warp.TABLE}
_LEAVING = ("bra", "brx", "ret", "exit", "call", "bar", "barrier", "trap")


@dataclass
class Piece:
    """Code that is entered at its start and left at its end. Made executable when it is first reached."""

    function: Function
    instructions: list[Instruction]
    following: int  # the piece behind it
    received_from: Instruction | None = None  # the call whose results arrive here
    code: list[tuple[Run, Instruction]] | None = None
    mask: Source | None = None  # the lanes that a collective instruction at the start waits for
    executed: int = 0  # threads, over the launch


@dataclass
class Program:
    machine: Machine
    pieces: list[Piece] = field(default_factory=list)
    starts: dict[str, int] = field(default_factory=dict)  # of functions
    labels: dict[tuple[str, str], int] = field(default_factory=dict)
    is_running: bool = False  # a launch has it

    def __post_init__(self) -> None:
        for function in _callees_first(self.machine.module, self.machine.entry):
            self._cut(function)

    def _cut(self, function: Function) -> None:
        leaders = {0, *function.labels.values()}
        for i, instruction in enumerate(function.instructions):
            if instruction.name in _LEAVING and not warp.is_collective(instruction):
                leaders.add(i + 1)
            if warp.is_collective(instruction):
                leaders.add(i)
        bounds = [*sorted(i for i in leaders if i < len(function.instructions)), len(function.instructions)]
        first = len(self.pieces)
        self.starts[function.name] = first
        numbers = {}
        before: Instruction | None = None
        for start, end in pairwise(bounds):
            numbers[start] = len(self.pieces)
            piece = Piece(function, function.instructions[start:end], len(self.pieces) + 1)
            piece.received_from = before if before and before.name == "call" else None
            before = piece.instructions[-1]
            self.pieces.append(piece)
        # A label behind the last instruction is nowhere; nvcc ends functions with ret.
        self.labels.update({(function.name, label): numbers[i] for label, i in function.labels.items() if i in numbers})

    def make(self, piece: Piece) -> list[tuple[Run, Instruction]]:
        """The code of a piece."""
        first = piece.instructions[0]
        if warp.is_collective(first):
            piece.mask = warp.mask_of(self.machine, piece.function, first)
        code = []
        if piece.received_from:
            code.append((self._receive(piece.function, piece.received_from), piece.received_from))
        code += [(self._executable(piece.function, i), i) for i in piece.instructions if i.opcode != "bar.warp.sync"]
        piece.code = code
        return code

    def _executable(self, function: Function, instruction: Instruction) -> Run:
        build = _BUILD.get(instruction.name)
        if build:
            run = build(self.machine, function, instruction)
        elif instruction.name in _LEAVING:
            run = _CONTROL[instruction.name](self, function, instruction)
        else:
            raise UnsupportedError(f"the instruction {instruction}")
        if not instruction.guard:
            return run
        guard = self.machine.source(function, instruction, instruction.guard, "pred")
        machine = self.machine

        def guarded(at: Index) -> None:
            some = machine.threads[at]
            chosen = some[guard(at)]
            machine.counts[instruction.opcode] -= len(some) - len(chosen)
            if len(chosen):
                run(chosen)

        return guarded

    def _receive(self, function: Function, call: Instruction) -> Run:
        results, callee, _ = _call_parts(call)
        to = [self.machine.call_parameter(function, result, call.scope) for result in results]
        return self.copying(to, [self.place(callee, v.name) for v in self.machine.module.functions[callee].results])

    def place(self, function: str, name: str) -> tuple[int, int]:
        return self.machine.call_parameter(self.machine.module.functions[function], Name(name), 0)

    def copying(self, to: list[tuple[int, int]], what: list[tuple[int, int]]) -> Run:
        pairs = list(zip(to, what, strict=True))
        data = self.machine.function_parameters.data

        def run(at: Index) -> None:
            for (left, size), (right, _) in pairs:
                data[at, left : left + size] = data[at, right : right + size]

        return run


def _call_parts(call: Instruction) -> tuple[tuple[Operand, ...], str, tuple[Operand, ...]]:
    """Results, function, arguments."""
    operands = list(call.operands)
    results = operands.pop(0) if isinstance(operands[0], Group) else Group(())
    assert isinstance(results, Group)
    callee = operands.pop(0)
    arguments = operands.pop(0) if operands else Group(())
    if operands or not isinstance(callee, Name) or not isinstance(arguments, Group) or callee.name.startswith("%"):
        raise UnsupportedError(f"an indirect call, {call}")
    return results.items, callee.name, arguments.items


def _callees_first(module: Module, entry: Function) -> list[Function]:
    """So that threads inside a call go on before those that wait behind it."""
    order: list[Function] = []
    open_: list[str] = []

    def visit(function: Function) -> None:
        if function.name in open_:
            raise UnsupportedError(f"recursion of {function.name}")
        if function in order:
            return
        open_.append(function.name)
        for instruction in function.instructions:
            if instruction.name == "call":
                callee = module.functions.get(_call_parts(instruction)[1])
                if callee:
                    visit(callee)
        open_.pop()
        order.append(function)

    visit(entry)
    return order


def _branch(program: Program, function: Function, instruction: Instruction) -> Run:
    arithmetic.modifiers(instruction, "uni", last=len(instruction.parts))
    target = instruction.operands[0]
    assert isinstance(target, Name)
    number, pc = program.labels[function.name, target.name], program.machine.pc

    def run(at: Index) -> None:
        pc[at] = number

    return run


def _branch_by_index(program: Program, function: Function, instruction: Instruction) -> Run:
    read = program.machine.source(function, instruction, instruction.operands[0], "u32")
    table = instruction.operands[1]
    assert isinstance(table, Name)
    numbers = np.array([program.labels[function.name, label] for label in function.targets[table.name]])
    pc = program.machine.pc

    def run(at: Index) -> None:
        index = read(at)
        if (index >= len(numbers)).any():
            raise PtxError(f"branch index {index.max()} of {len(numbers)} targets")
        pc[at] = numbers[index]

    return run


def _return(program: Program, function: Function, instruction: Instruction) -> Run:
    machine = program.machine
    ends = function.is_entry or instruction.name == "exit"

    def run(at: Index) -> None:
        if ends:
            machine.pc[at] = ENDED
        else:
            machine.depth[at] -= 1
            threads = machine.threads[at]
            machine.pc[at] = machine.return_to[threads, machine.depth[at]]

    return run


def _call(program: Program, function: Function, instruction: Instruction) -> Run:
    machine = program.machine
    _, name, arguments = _call_parts(instruction)
    if name not in program.starts:
        raise UnsupportedError(f"a call of {name}, which has no body, {instruction}")
    what = [machine.call_parameter(function, argument, instruction.scope) for argument in arguments]
    give = program.copying([program.place(name, v.name) for v in machine.module.functions[name].parameters], what)
    start = program.starts[name]

    def run(at: Index) -> None:
        give(at)
        machine.return_to[machine.threads[at], machine.depth[at]] = machine.pc[at]
        machine.depth[at] += 1
        machine.pc[at] = start

    return run


def _barrier(program: Program, function: Function, instruction: Instruction) -> Run:
    """`bar.sync` of all threads of the block."""
    arithmetic.modifiers(instruction, "cta sync aligned", last=len(instruction.parts))
    if len(instruction.operands) != 1 or not isinstance(instruction.operands[0], Integer):
        raise UnsupportedError(f"a barrier of some threads, {instruction}")
    pc = program.machine.pc

    def run(at: Index) -> None:
        pc[at] += AT_BARRIER

    return run


def _trap(program: Program, function: Function, instruction: Instruction) -> Run:
    def run(at: Index) -> None:
        raise PtxError(f"a trap, thread {program.machine.threads[at][0]}")

    return run


_CONTROL: dict[str, Callable[[Program, Function, Instruction], Run]] = {
    "bra": _branch,
    "brx": _branch_by_index,
    "ret": _return,
    "exit": _return,
    "call": _call,
    "bar": _barrier,
    "barrier": _barrier,
    "trap": _trap,
}
