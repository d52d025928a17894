"""Runs the blocks of a launch, one after another or a few by turns, and the threads of a block by turns."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np

from ptx.errors import DeadlockError, PtxError
from ptx.machine import EVERY, Machine
from ptx.memory import Memory
from ptx.program import AT_BARRIER, AT_COLLECTIVE, ENDED, Piece, Program
from ptx.syntax import Kernel
from ptx.types import WARP, Array, Index

Argument = int | float | bytes | np.generic
Size = int | tuple[int, ...]

_LATE = 1 << 32  # added to the pc of warps that wait until the others can go no further


@dataclass
class Statistics:
    """Of one launch. `instructions`: how often threads executed each opcode."""

    instructions: Counter[str]
    bytes_loaded: int  # from global memory
    bytes_stored: int
    barriers: int  # over all blocks
    blocks: int


def _three(size: Size) -> tuple[int, int, int]:
    x, y, z = (*((size,) if isinstance(size, int) else size), 1, 1)[:3]
    return x, y, z


def _bytes_of(argument: Argument, size: int, name: str) -> bytes:
    if isinstance(argument, bytes):
        data = argument
    elif isinstance(argument, np.generic):
        data = argument.tobytes()
    elif isinstance(argument, int):
        data = (
            (argument % 2 ** (8 * size)).to_bytes(size, "little")
            if -(2 ** (8 * size)) < argument < 2 ** (8 * size)
            else b""
        )
    else:
        data = np.array(argument, f"f{size}").tobytes()
    if len(data) != size:
        raise ValueError(f"{name}={argument!r} must have {size} bytes, has {len(data)}")
    return data


class _Block:
    """The threads of one block until all have ended."""

    def __init__(self, program: Program, limit: int) -> None:
        self.program, self.machine, self.left = program, program.machine, limit
        self.late = np.zeros(self.machine.n_threads, np.int64)
        self.barriers = 0

    def run(self) -> Iterator[None]:
        """From barrier to barrier. The threads whose code comes first in the text go first, so that those that parted
        meet again.
        """
        machine = self.machine
        self._choose_late_warps()
        while True:
            key = machine.pc + self.late
            lowest = int(key.min())
            if lowest >= AT_BARRIER:
                if (machine.pc >= ENDED).all():
                    return
                self._release()
                yield
                continue
            number = lowest % _LATE
            chosen = np.flatnonzero(key == lowest)
            at: Index = EVERY if len(chosen) == machine.n_threads else chosen
            self._run_piece(self.program.pieces[number], number, at)
            self.left -= 1
            if self.left < 0:
                raise PtxError(f"does not end: thread {chosen[0]} at {self.program.pieces[number].instructions[0]}")

    def _choose_late_warps(self) -> None:
        if self.machine.random:
            late = self.machine.random.integers(0, 2, -(-self.machine.n_threads // WARP)) * _LATE
            self.late = np.repeat(late, WARP)[: self.machine.n_threads]

    def _run_piece(self, piece: Piece, number: int, at: Index) -> None:
        machine = self.machine
        instruction = piece.instructions[0]
        try:
            code = piece.code or self.program.make(piece)
            if piece.mask:
                at = self._arrived(piece, number, machine.threads[at][0])
                if len(at) == 0:
                    return
            machine.pc[at] = piece.following
            piece.executed += len(machine.threads[at])
            for run, instruction in code:  # noqa: B007 (an error names the instruction that it was in)
                run(at)
        except PtxError as error:
            raise type(error)(f"{error} [{instruction}; {self._where()}]") from error

    def _where(self) -> str:
        return f"block {self.machine.place}"

    def _arrived(self, piece: Piece, number: int, first: int) -> Array:
        """The threads at a collective instruction whose whole mask has come; the others wait."""
        machine = self.machine
        assert piece.mask
        turn = self.late == self.late[first]
        machine.pc[turn & (machine.pc == number + AT_COLLECTIVE)] = number
        here = np.flatnonzero(turn & (machine.pc == number))
        masks = np.broadcast_to(piece.mask(here), here.shape)
        lanes = np.ones(-(-machine.n_threads // WARP) * WARP, bool)
        lanes[: machine.n_threads] = (machine.pc == number) | (machine.pc >= ENDED)
        come = (
            (lanes.reshape(-1, WARP) * (np.uint64(1) << np.arange(WARP, dtype=np.uint64))).sum(axis=1).astype(np.uint32)
        )
        if not ((masks >> (here % WARP).astype(np.uint32)) & np.uint32(1)).all():
            raise PtxError("a thread executes this whose lane the mask does not name")
        ready = masks & ~come[here // WARP] == 0
        machine.pc[here[~ready]] = number + AT_COLLECTIVE
        return np.asarray(here[ready])

    def _release(self) -> None:
        """All that live stand at one barrier, or none will ever go on."""
        machine = self.machine
        live = machine.pc < ENDED
        places = np.unique(machine.pc[live])
        if len(places) == 1 and AT_BARRIER <= places[0] < AT_COLLECTIVE:
            machine.pc[live] -= AT_BARRIER
            machine.shared.barrier()
            self.barriers += 1
            self._choose_late_warps()
            return
        waiting = []
        for place in places:
            threads = np.flatnonzero(machine.pc == place)
            collective = place >= AT_COLLECTIVE
            # The piece behind a barrier is not always there, so name the one before it.
            number = int(place % _LATE)
            piece = self.program.pieces[number if collective else number - 1]
            instruction = piece.instructions[0 if collective else -1]
            waiting.append(f"{len(threads)} threads (first {threads[0]}) at {instruction}")
        raise DeadlockError(f"{'; '.join(waiting)}: the others will not come [{self._where()}]")


def _prepared(kernel: Kernel, shape: tuple[int, int, int], shared_bytes: int, place: int) -> Program:
    key = (shape, shared_bytes, place)
    program = kernel.prepared.get(key)
    if not isinstance(program, Program):
        program = kernel.prepared[key] = Program(Machine(kernel, shape, shared_bytes))
    return program


def _by_turns(
    programs: list[Program], waiting: deque[int], size: tuple[int, int, int], entry: str, limit: int, seed: int | None
) -> Iterator[_Block]:
    """Runs the blocks that wait, as many at a time as there are programs. Yields each that has ended."""
    turns = np.random.default_rng(seed)
    idle, running = list(reversed(programs)), deque[tuple[_Block, Iterator[None]]]()
    while waiting or running:
        while waiting and idle:
            program, number = idle.pop(), waiting.popleft()
            x, rest = number % size[0], number // size[0]
            program.machine.begin_block((x, rest % size[1], rest // size[1]), program.starts[entry])
            begun = _Block(program, limit)
            running.append((begun, begun.run()))
        running.rotate(0 if seed is None else int(turns.integers(len(running))))
        its, run = running.popleft()
        with np.errstate(all="ignore"):
            stands_at_barrier = next(run, True) is None
        if stands_at_barrier:
            running.append((its, run))
            continue
        idle.append(its.program)
        yield its


def _idle(kernel: Kernel, shape: tuple[int, int, int], shared_bytes: int) -> Iterator[Program]:
    """Programs that no launch runs: while one runs, a destructor may wait for another of the same kernel."""
    programs = (_prepared(kernel, shape, shared_bytes, place) for place in count())
    return (program for program in programs if not program.is_running)


def launch(
    kernel: Kernel,
    grid: Size,
    block: Size,
    arguments: Sequence[Argument],
    memory: Memory,
    *,
    blocks: Iterable[int] | None = None,
    resident: int = 1,
    seed: int | None = None,
    shared_bytes: int = 0,
    limit: int = 1_000_000,
) -> Statistics:
    """Runs a kernel over `memory`.

    `arguments` are numbers, or the bytes of a struct. `blocks` are the numbers (x fastest) of the blocks to run, in
    that order: all in rising order by default. `resident` of them are there at a time and take turns: each runs to its
    next barrier. With a `seed`, turns come in random order, between two barriers a random half of the warps runs as far
    as it can before the others start, and atomics of one instruction come in random order; without, blocks take turns
    one after another, and all warps of a block run together. `shared_bytes` is the size of `extern __shared__` arrays.
    A block that takes more than `limit` steps from one piece of code to the next does not end.

    Raises PtxError, by the names of errors.py, and ValueError for arguments that do not fit.
    """
    shape, size = _three(block), _three(grid)
    n_blocks = size[0] * size[1] * size[2]
    threads = shape[0] * shape[1] * shape[2]
    if not 0 < threads <= (kernel.function.max_threads or 1024):
        raise ValueError(f"block={block} must have 1 to {kernel.function.max_threads or 1024} threads")
    if len(arguments) != len(kernel.parameters):
        raise ValueError(f"arguments: {len(arguments)} given, {len(kernel.parameters)} parameters")
    data = [_bytes_of(argument, v.size, v.name) for argument, v in zip(arguments, kernel.parameters, strict=True)]
    programs = list(islice(_idle(kernel, shape, shared_bytes), resident))
    for place, program in enumerate(programs):
        program.is_running = True
        program.machine.begin_launch(memory, size, data, None if seed is None else seed + place)
        for piece in program.pieces:
            piece.executed = 0
    memory.bytes_loaded = memory.bytes_stored = 0
    statistics = Statistics(Counter(), 0, 0, 0, 0)
    waiting = deque(range(n_blocks) if blocks is None else blocks)
    for number in waiting:
        if not 0 <= number < n_blocks:
            raise ValueError(f"blocks: {number} is not below {n_blocks}")
    try:
        for its in _by_turns(programs, waiting, size, kernel.function.name, limit, seed):
            statistics.barriers += its.barriers
            statistics.blocks += 1
    finally:
        for program in programs:
            program.is_running = False
    for program in programs:
        _count(statistics, program)
    statistics.bytes_loaded, statistics.bytes_stored = memory.bytes_loaded, memory.bytes_stored
    return statistics


def _count(statistics: Statistics, program: Program) -> None:
    counts = statistics.instructions
    for piece in program.pieces:
        if piece.executed:
            for instruction in piece.instructions:
                counts[instruction.opcode] += piece.executed
    counts.update(program.machine.counts)  # those whose guard was false, negative
