"""The memory of a block and of a thread, and the windows through which generic addresses see them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ptx.errors import MemoryFaultError, RaceError
from ptx.memory import check_alignment
from ptx.syntax import Variable
from ptx.types import WARP, Array

# A generic address is one of global memory, or has the number of its space in the upper bits.
WINDOW_BITS = np.uint64(60)
WINDOWS = {"global": 0, "shared": 1, "local": 2, "const": 3, "param": 4}
_NAMES = {number: name for name, number in WINDOWS.items()}
_GUARD = 64  # bytes between variables that belong to none

_NOBODY, _MANY = -1, -2
_ATOMIC = 1 << 20  # added to a warp's number


class Space(Protocol):
    def load(self, threads: Array, addresses: Array, dtype: np.dtype[Any], count: int) -> Array: ...

    def store(self, threads: Array, addresses: Array, values: Array) -> None: ...


def placed(variables: list[Variable], first: int = 0) -> tuple[list[int], int]:
    """Where variables stand that follow each other, with room between them, and the end."""
    places, end = [], first
    for variable in variables:
        start = -(-end // max(variable.alignment, 16)) * max(variable.alignment, 16)
        places.append(start)
        end = start + variable.size + _GUARD
    return places, end


class Shared:
    """The shared memory of the block that is running.

    Reads of bytes that nobody wrote, and races: between two barriers a byte that one warp writes may be touched by no
    other. (Lanes of one warp are taken to run together; two that write different values to one place race too.)
    Atomics race with plain accesses of other warps, not with each other.
    """

    def __init__(self, variables: list[Variable], sizes: list[int]) -> None:
        self.places, end = placed(
            [Variable(v.name, v.space, v.alignment, s) for v, s in zip(variables, sizes, strict=True)]
        )
        self.data = np.zeros(-(-end // 16) * 16, np.uint8)
        self.valid = np.zeros(len(self.data), bool)
        for place, size in zip(self.places, sizes, strict=True):
            self.valid[place : place + size] = True
        self.defined = np.zeros(len(self.data), bool)
        self.writer = np.full(len(self.data), _NOBODY, np.int32)
        self.reader = np.full(len(self.data), _NOBODY, np.int32)
        self.atomic = False  # is the access part of an atomic?

    def begin_block(self) -> None:
        self.data[:] = 0xA5
        self.defined[:] = False
        self.atomic = False
        self.barrier()

    def barrier(self) -> None:
        """What came before is visible to all."""
        self.writer[:] = _NOBODY
        self.reader[:] = _NOBODY

    def _bytes(self, threads: Array, addresses: Array, size: int) -> Array:
        check_alignment(threads, addresses, size)
        outside = addresses > np.uint64(max(len(self.data) - size, 0))
        if not outside.any():
            places = addresses.astype(np.int64)[:, None] + np.arange(size)
            outside = ~self.valid[places].all(axis=1) if len(self.data) >= size else ~outside
        if outside.any():
            bad = int(np.flatnonzero(outside)[0])
            raise MemoryFaultError(
                f"shared address {int(addresses[bad]):#x}, {size} bytes: outside of variables, thread {threads[bad]}"
            )
        return places

    def _race(self, what: str, threads: Array, places: Array, bad: Array, other: Array) -> None:
        if not bad.any():
            return
        row, column = (int(i) for i in np.argwhere(bad)[0])
        place, who = int(places[row, column]), int(other[row, column])
        whose = "several warps" if who == _MANY else f"warp {who % _ATOMIC}"
        thread = threads[row]
        raise RaceError(
            f"shared address {place:#x}: warp {thread // WARP} (thread {thread}) {what} {whose}, no barrier between"
        )

    def load(self, threads: Array, addresses: Array, dtype: np.dtype[Any], count: int) -> Array:
        places = self._bytes(threads, addresses, dtype.itemsize * count)
        if not self.defined[places].all():
            bad = int(np.flatnonzero(~self.defined[places].all(axis=1))[0])
            raise MemoryFaultError(
                f"shared address {int(addresses[bad]):#x} is read and never written, thread {threads[bad]}"
            )
        warps = self._warps(threads)
        writer = self.writer[places]
        self._race("reads what was written by", threads, places, self._differ(writer, warps), writer)
        if self.atomic:
            return self.data[places].view(dtype)
        before = self.reader[places]
        self.reader[places] = np.broadcast_to(warps, places.shape)
        conflict = ((before != _NOBODY) & (before != warps)) | (self.reader[places] != warps)
        self.reader[places[conflict]] = _MANY
        return self.data[places].view(dtype)

    def _warps(self, threads: Array) -> Array:
        return (threads // WARP + (_ATOMIC if self.atomic else 0)).astype(np.int32)[:, None]

    def _differ(self, who: Array, warps: Array) -> Array:
        both_atomic = (who >= _ATOMIC) & (warps >= _ATOMIC)
        return np.asarray((who != _NOBODY) & ~both_atomic & ((who == _MANY) | (who % _ATOMIC != warps % _ATOMIC)))

    def store(self, threads: Array, addresses: Array, values: Array) -> None:
        places = self._bytes(threads, addresses, values.dtype.itemsize * values.shape[1])
        warps = self._warps(threads)
        for seen, what in ((self.writer, "writes what was written by"), (self.reader, "writes what was read by")):
            who = seen[places]
            self._race(what, threads, places, self._differ(who, warps), who)
        data = np.ascontiguousarray(values).view(np.uint8).reshape(places.shape)
        self.writer[places] = np.broadcast_to(warps, places.shape)
        self.data[places] = data
        self.defined[places] = True
        who = self.writer[places]
        self._race("writes together with", threads, places, who != warps, who)
        if (self.data[places] != data).any():
            bad = int(np.flatnonzero((self.data[places] != data).any(axis=1))[0])
            raise RaceError(
                f"shared address {int(addresses[bad]):#x}: lanes write different values (thread {threads[bad]})"
            )


class PerThread:
    """Local memory, or the parameters of a function: the same addresses for every thread, each with its own bytes."""

    def __init__(self, n_threads: int, size: int, what: str) -> None:
        self.data = np.zeros((n_threads, -(-size // 16) * 16), np.uint8)
        self.size, self.what = size, what

    def _columns(self, threads: Array, addresses: Array, dtype: np.dtype[Any], count: int) -> Array:
        size = dtype.itemsize * count
        check_alignment(threads, addresses, size)
        outside = addresses > np.uint64(max(self.size - size, 0))
        if outside.any() or size > self.size:
            bad = int(np.flatnonzero(outside)[0]) if outside.any() else 0
            where = f"{self.what} address {int(addresses[bad]):#x}, {size} bytes"
            raise MemoryFaultError(f"{where}: outside of {self.size} bytes, thread {threads[bad]}")
        return (addresses.astype(np.int64) // dtype.itemsize)[:, None] + np.arange(count)

    def load(self, threads: Array, addresses: Array, dtype: np.dtype[Any], count: int) -> Array:
        columns = self._columns(threads, addresses, dtype, count)
        return self.data.view(dtype)[threads[:, None], columns]

    def store(self, threads: Array, addresses: Array, values: Array) -> None:
        columns = self._columns(threads, addresses, values.dtype, values.shape[1])
        self.data.view(values.dtype)[threads[:, None], columns] = values


class Generic:
    """All spaces at once."""

    def __init__(self, spaces: dict[str, Space]) -> None:
        self.spaces = spaces

    def _split(self, addresses: Array) -> list[tuple[Array | slice, Space, Array]]:
        if int(addresses.max()) >> int(WINDOW_BITS) == 0:
            return [(slice(None), self.spaces["global"], addresses)]
        windows = addresses >> WINDOW_BITS
        parts: list[tuple[Array | slice, Space, Array]] = []
        for window in np.unique(windows):
            here = slice(None) if (windows == window).all() else windows == window
            space = self.spaces.get(_NAMES.get(int(window), ""), self.spaces["global"])
            inside = addresses[here]
            parts.append((here, space, inside - (window << WINDOW_BITS) if int(window) in _NAMES else inside))
        return parts

    def load(self, threads: Array, addresses: Array, dtype: np.dtype[Any], count: int) -> Array:
        result = np.empty((len(addresses), count), dtype)
        for here, space, inside in self._split(addresses):
            result[here] = space.load(threads[here], inside, dtype, count)
        return result

    def store(self, threads: Array, addresses: Array, values: Array) -> None:
        for here, space, inside in self._split(addresses):
            space.store(threads[here], inside, values[here])
