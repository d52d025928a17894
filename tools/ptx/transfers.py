"""Instructions that move data: between registers, memory and spaces, and atomics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptx import floats
from ptx.arithmetic import apply, modifiers
from ptx.errors import UnsupportedError
from ptx.machine import Machine
from ptx.spaces import Space
from ptx.syntax import Address, Function, Group, Instruction, Integer, Name, Operand
from ptx.types import DTYPES, Array, Index, Run, Source, unsigned

_SPACES = ("global", "shared", "local", "const", "param")
# Hints of caching and order say nothing here: accesses happen one after another.
_HINTS = (
    "nc volatile relaxed acquire release acq_rel weak cta cluster gpu sys ca cg cs cv lu wb wt "
    "L1__no_allocate L1__evict_first L1__evict_last L1__evict_normal L1__evict_unchanged L2__64B L2__128B L2__256B"
)


def move(machine: Machine, function: Function, instruction: Instruction) -> Run:
    """`mov`, also of the parts of a vector into one register and back."""
    modifiers(instruction, "")
    kind = instruction.parts[-1]
    to, what = instruction.operands
    if not isinstance(to, Group) and not isinstance(what, Group):
        bits = kind if kind == "pred" else "b" + kind[1:]
        value = what
        return apply(machine, function, instruction, lambda a: a, [kind if not isinstance(value, Name) else bits] * 2)
    group = to if isinstance(to, Group) else what
    assert isinstance(group, Group)
    size = DTYPES[kind].itemsize // len(group.items)
    part, dtype = f"b{size * 8}", unsigned(size)
    if isinstance(to, Group):
        read = machine.source(function, instruction, what, "b" + kind[1:])
        writes = [machine.sink(function, instruction, item, part) for item in group.items]

        def unpack(at: Index) -> None:
            parts = np.array(read(at)).view(dtype).reshape(-1, len(writes))
            for i, write in enumerate(writes):
                write(at, parts[:, i])

        return unpack
    reads = [machine.source(function, instruction, item, part) for item in group.items]
    write_whole = machine.sink(function, instruction, to, "b" + kind[1:])

    def pack(at: Index) -> None:
        parts = np.stack(np.broadcast_arrays(*[read(at) for read in reads]), axis=1)
        write_whole(at, np.ascontiguousarray(parts).view(unsigned(size * len(reads))).reshape(-1))

    return pack


def convert_address(machine: Machine, function: Function, instruction: Instruction) -> Run:
    """`cvta`: between the addresses of a space and generic ones."""
    *words, kind = instruction.parts[1:]
    space = words[-1]
    if space not in _SPACES:
        raise UnsupportedError(str(instruction))
    window = machine.window(space)
    if words[0] == "to":
        return apply(machine, function, instruction, lambda a: a - window, [kind] * 2)
    return apply(machine, function, instruction, lambda a: a + window, [kind] * 2)


def space_of(machine: Machine, function: Function, instruction: Instruction, known: str) -> Callable[[], Space]:
    """The memory that an instruction names; asked for when it runs, as a launch brings its own."""
    words = modifiers(instruction, " ".join(_SPACES) + " v2 v4 v8 " + _HINTS + " " + known)
    named = [space for space in _SPACES if space in words]
    name = named[0] if named else "generic"
    address = next(o for o in instruction.operands if isinstance(o, Address))
    if name == "param":
        base = address.base.name if isinstance(address.base, Name) else ""
        if not function.is_entry or base not in function.scopes[0].variables:
            return lambda: machine.function_parameters
    return lambda: machine.spaces[name]


def address_of(machine: Machine, function: Function, instruction: Instruction, address: Address) -> Source:
    if isinstance(address.base, Integer):
        fixed = np.array([address.base.value + address.offset], np.uint64)
        return lambda at: fixed
    is_register = function.register_type(address.base.name, instruction.scope)
    kind = "u" + is_register[1][1:] if is_register else "u64"
    read = machine.source(function, instruction, address.base, kind)
    offset = np.uint64(address.offset % 2**64)
    return lambda at: np.asarray(read(at).astype(np.uint64) + offset)


def _items(operand: Operand) -> tuple[Operand, ...]:
    return operand.items if isinstance(operand, Group) else (operand,)


def load(machine: Machine, function: Function, instruction: Instruction) -> Run:
    space, kind = space_of(machine, function, instruction, ""), instruction.parts[-1]
    to, address = instruction.operands
    if not isinstance(address, Address):
        raise UnsupportedError(str(instruction))
    place = address_of(machine, function, instruction, address)
    writes = [machine.sink(function, instruction, item, kind) for item in _items(to)]
    dtype, count = DTYPES[kind], len(writes)

    def run(at: Index) -> None:
        threads = machine.threads[at]
        values = space().load(threads, np.broadcast_to(place(at), threads.shape), dtype, count)
        for i, write in enumerate(writes):
            write(at, values[:, i])

    return run


def store(machine: Machine, function: Function, instruction: Instruction) -> Run:
    space, kind = space_of(machine, function, instruction, ""), instruction.parts[-1]
    address, what = instruction.operands
    if not isinstance(address, Address):
        raise UnsupportedError(str(instruction))
    place = address_of(machine, function, instruction, address)
    reads = [machine.source(function, instruction, item, kind) for item in _items(what)]
    dtype = DTYPES[kind]

    def run(at: Index) -> None:
        threads = machine.threads[at]
        values = np.empty((len(threads), len(reads)), dtype)
        for i, read in enumerate(reads):
            values[:, i] = read(at)
        space().store(threads, np.broadcast_to(place(at), threads.shape), values)

    return run


Combine = Callable[[Array, Array], Any]


def _counting_up(old: Array, limit: Array) -> Array:
    return np.asarray(np.where(old >= limit, old.dtype.type(0), old + old.dtype.type(1)))


def _counting_down(old: Array, limit: Array) -> Array:
    return np.where((old == 0) | (old > limit), limit, old - old.dtype.type(1))


_ATOMICS: dict[str, Combine] = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "exch": lambda old, new: new,
    "inc": _counting_up,
    "dec": _counting_down,
}


def atomic(machine: Machine, function: Function, instruction: Instruction) -> Run:
    """`atom` and `red`: one thread after another, in the order of their numbers or, with a seed, in a random one."""
    kind = instruction.parts[-1]
    space = space_of(machine, function, instruction, " ".join(_ATOMICS) + " cas")
    names = [word for word in instruction.parts[1:-1] if word in _ATOMICS or word == "cas"]
    operands = instruction.operands
    write = machine.sink(function, instruction, operands[0], kind) if instruction.name == "atom" else None
    address = operands[1 if write else 0]
    if len(names) != 1 or not isinstance(address, Address) or kind not in DTYPES or "16" in kind:
        raise UnsupportedError(str(instruction))
    place = address_of(machine, function, instruction, address)
    reads = [machine.source(function, instruction, o, kind) for o in operands[2 if write else 1 :]]
    if len(reads) != (2 if names[0] == "cas" else 1):
        raise UnsupportedError(f"the operands of {instruction}")
    combine = _ATOMICS.get(names[0])

    def once(thread: Array, where: Array, old: Array, values: list[Array]) -> None:
        new = np.asarray(combine(old, values[0]) if combine else np.where(old == values[0], values[1], old))
        if kind == "f32" and combine is np.add:
            new = floats.canonical(new)
        space().store(thread, where, new[:, None])

    def run(at: Index) -> None:
        threads = machine.threads[at]
        places = np.broadcast_to(place(at), threads.shape)
        values = [np.broadcast_to(read(at), threads.shape) for read in reads]
        results = np.empty(len(threads), DTYPES[kind])
        order = machine.random.permutation(len(threads)) if machine.random else range(len(threads))
        machine.shared.atomic = True
        for i in order:
            one = slice(i, i + 1)
            results[one] = space().load(threads[one], places[one], DTYPES[kind], 1)[:, 0]
            once(threads[one], places[one], results[one], [v[one] for v in values])
        machine.shared.atomic = False
        if write:
            write(at, results)

    return run


def nothing(machine: Machine, function: Function, instruction: Instruction) -> Run:
    """Fences, which order what is ordered here anyway; they are counted."""
    return lambda at: None


TABLE: dict[str, Callable[[Machine, Function, Instruction], Run]] = {
    "mov": move,
    "cvta": convert_address,
    "ld": load,
    "ldu": load,
    "st": store,
    "atom": atomic,
    "red": atomic,
    "membar": nothing,
    "fence": nothing,
}
