"""Device memory: buffers at 64-bit addresses, every access checked for bounds and alignment.

Values are held as they are written: no caches, no ordering between blocks other than that they run one after another.
"""

from __future__ import annotations

import bisect
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ptx.errors import MemoryFaultError
from ptx.syntax import Module
from ptx.types import Array

_PAGE = 4096  # bytes of a page of a sparse buffer
_FIRST = 0x7_0000_0000  # where allocate() begins
_GAP = 4096  # between buffers: what runs over an end is outside


class Contents(Protocol):
    """The bytes of a buffer, read and written as `(accesses, elements)` at element numbers of a dtype."""

    size: int

    def gather(self, offsets: Array, dtype: np.dtype[Any], count: int) -> Array: ...

    def scatter(self, offsets: Array, values: Array) -> None: ...


class _Dense:
    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        self.data, self.size = data, len(data)
        self._views: dict[tuple[np.dtype[Any], int], Array] = {}

    def _at(self, offsets: Array, dtype: np.dtype[Any], count: int) -> tuple[Array, Array]:
        """A view of the elements, and their numbers in it. All offsets lie alike between multiples of the size."""
        first = int(offsets[0]) % dtype.itemsize if len(offsets) else 0
        view = self._views.get((dtype, first))
        if view is None:
            whole = (self.size - first) // dtype.itemsize * dtype.itemsize
            view = self._views[dtype, first] = self.data[first : first + whole].view(dtype)
        numbers = (offsets - first) // dtype.itemsize
        return view, numbers[:, None] if count == 1 else numbers[:, None] + np.arange(count)

    def gather(self, offsets: Array, dtype: np.dtype[Any], count: int) -> Array:
        view, numbers = self._at(offsets, dtype, count)
        return np.asarray(view[numbers])

    def scatter(self, offsets: Array, values: Array) -> None:
        view, numbers = self._at(offsets, values.dtype, values.shape[1])
        view[numbers] = values


class SparseBuffer:
    """A buffer of any size of which only the pages that were written exist; the others read as `fill`."""

    def __init__(self, size: int, fill: int = 0) -> None:
        self.size, self.fill = size, fill
        self.pages: dict[int, npt.NDArray[np.uint8]] = {}

    def _page(self, number: int) -> npt.NDArray[np.uint8]:
        page = self.pages.get(number)
        return np.full(_PAGE, self.fill, np.uint8) if page is None else page

    def _bytes(self, offsets: Array, size: int) -> Array:
        return np.asarray((offsets[:, None] + np.arange(size)).reshape(-1))

    def gather(self, offsets: Array, dtype: np.dtype[Any], count: int) -> Array:
        places = self._bytes(offsets, dtype.itemsize * count)
        data = np.empty(len(places), np.uint8)
        for number in np.unique(places // _PAGE):
            here = places // _PAGE == number
            data[here] = self._page(int(number))[places[here] % _PAGE]
        return np.asarray(data.reshape(len(offsets), -1).view(dtype))

    def scatter(self, offsets: Array, values: Array) -> None:
        data = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        places = self._bytes(offsets, values.dtype.itemsize * values.shape[1])
        for number in np.unique(places // _PAGE):
            here = places // _PAGE == number
            self.pages.setdefault(int(number), self._page(int(number)))[places[here] % _PAGE] = data[here]


class Buffer:
    """`size` bytes from `address` on."""

    def __init__(self, address: int, contents: Contents, name: str, read_only: bool) -> None:
        self.address, self.contents, self.name, self.read_only = address, contents, name, read_only
        self.end = address + contents.size


class Memory:
    """The global memory of a device. Buffers stay between launches, and so do the variables of modules."""

    def __init__(self) -> None:
        self._buffers: list[Buffer] = []  # by address, as are their ends
        self._ends: list[tuple[int, int]] = []
        self._bases: Array | None = None  # of all buffers, made when it is needed
        self._next = _FIRST
        self._symbols: dict[tuple[int, str], int] = {}
        self._modules: list[Module] = []  # kept alive, so that an id stands for one module
        self.bytes_loaded = self.bytes_stored = 0

    def _insert(self, address: int, contents: Contents, name: str, read_only: bool) -> int:
        new = Buffer(address, contents, name, read_only)
        place = bisect.bisect(self._ends, (address, new.end))
        for old in self._buffers[max(place - 1, 0) : place + 1]:
            if address < old.end and old.address < new.end:
                raise ValueError(f"{name} at address={address:#x} overlaps {old.name} at {old.address:#x}")
        self._buffers.insert(place, new)
        self._ends.insert(place, (address, new.end))
        self._bases = None
        return address

    def _place(self, size: int, offset: int) -> int:
        address = self._next + offset
        self._next = -(-(address + size + _GAP) // _GAP) * _GAP
        return address

    def add(self, array: Array, address: int | None = None, *, name: str = "array", read_only: bool = False) -> int:
        """The bytes of a contiguous array as device memory, without a copy, at its own address on this host or at
        another; returns the address."""
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} must be contiguous, strides={array.strides}")
        data = array.reshape(-1).view(np.uint8)
        return self._insert(array.ctypes.data if address is None else address, _Dense(data), name, read_only)

    def allocate(self, size: int, *, offset: int = 0, fill: int = 0, name: str = "buffer") -> int:
        """New bytes, `offset` bytes behind a multiple of 4096; returns the address."""
        data = np.full(size, fill, np.uint8)
        return self._insert(self._place(size, offset), _Dense(data), name, False)

    def allocate_sparse(self, size: int, *, offset: int = 0, fill: int = 0, name: str = "sparse buffer") -> int:
        """As allocate(), for sizes that no machine has."""
        return self._insert(self._place(size, offset), SparseBuffer(size, fill), name, False)

    def release(self, address: int) -> None:
        """Accesses are outside from now on."""
        place = self._number(address)
        del self._buffers[place], self._ends[place]
        self._bases = None

    def _number(self, address: int) -> int:
        place = bisect.bisect(self._ends, (address, 0))
        if self._ends[place : place + 1] == [] or self._ends[place][0] != address:
            raise ValueError(f"no buffer begins at address={address:#x}")
        return place

    def contents(self, address: int) -> Contents:
        """Of the buffer that begins there."""
        return self._buffers[self._number(address)].contents

    def read(self, address: int, dtype: npt.DTypeLike, count: int) -> Array:
        """A copy of elements, for the host."""
        buffer = self._owner(np.array([address], np.uint64), np.dtype(dtype).itemsize * count, np.array([-1]))[0][1]
        return np.asarray(buffer.contents.gather(np.array([address - buffer.address]), np.dtype(dtype), count)[0])

    def write(self, address: int, values: Array) -> None:
        """Elements, by the host, to read-only buffers too."""
        buffer = self._owner(np.array([address], np.uint64), values.nbytes, np.array([-1]))[0][1]
        buffer.contents.scatter(np.array([address - buffer.address]), values.reshape(1, -1))

    def symbol(self, module: Module, name: str) -> int:
        """The address of a `.global` variable of a module: made, with its initial value, when first asked for."""
        key = (id(module), name)
        if key not in self._symbols:
            variable = module.variables[name]
            self._modules.append(module)
            self._symbols[key] = self.allocate(variable.size, name=name)
            self.write(self._symbols[key], np.frombuffer(variable.initial.ljust(variable.size, b"\0"), np.uint8))
        return self._symbols[key]

    def _owner(self, addresses: Array, size: int, threads: Array) -> list[tuple[Array | slice, Buffer]]:
        """Which accesses fall into which buffer."""
        if self._bases is None:
            self._bases = np.array([buffer.address for buffer in self._buffers], np.uint64)
        found = np.searchsorted(self._bases, addresses, side="right") - 1
        owners: list[tuple[Array | slice, Buffer]] = []
        alike = (found == found[0]).all()
        for number in found[:1] if alike else np.unique(found):
            here = slice(None) if alike else found == number
            inside = addresses[here]
            buffer = self._buffers[number] if number >= 0 else None
            limit = buffer.end - size if buffer else -1
            if buffer is None or int(inside.max()) > limit:
                bad = int(np.flatnonzero(inside > limit)[0]) if buffer and limit >= 0 else 0
                near = f" (behind {buffer.name}, {buffer.address:#x} to {buffer.end:#x})" if buffer else ""
                what = f"address {int(inside[bad]):#x}, {size} bytes: outside of all buffers{near}"
                raise MemoryFaultError(f"{what}, thread {threads[here][bad]}")
            owners.append((here, buffer))
        return owners

    def load(self, threads: Array, addresses: Array, dtype: np.dtype[Any], count: int) -> Array:
        """`count` elements for each thread, as `(threads, count)`."""
        size = dtype.itemsize * count
        check_alignment(threads, addresses, size)
        self.bytes_loaded += size * len(addresses)
        owners = self._owner(addresses, size, threads)
        result = np.empty((len(addresses), count), dtype)
        for here, buffer in owners:
            offsets = (addresses[here] - np.uint64(buffer.address)).astype(np.int64)
            result[here] = buffer.contents.gather(offsets, dtype, count)
        return result

    def store(self, threads: Array, addresses: Array, values: Array) -> None:
        size = values.dtype.itemsize * values.shape[1]
        check_alignment(threads, addresses, size)
        self.bytes_stored += size * len(addresses)
        owners = self._owner(addresses, size, threads)
        for here, buffer in owners:
            if buffer.read_only:
                where = f"address {int(addresses[here][0]):#x}, {size} bytes"
                raise MemoryFaultError(
                    f"{where}: a store to {buffer.name}, which is read-only, thread {threads[here][0]}"
                )
        for here, buffer in owners:
            offsets = (addresses[here] - np.uint64(buffer.address)).astype(np.int64)
            buffer.contents.scatter(offsets, values[here])


def check_alignment(threads: Array, addresses: Array, size: int) -> None:
    """A whole vector lies at a multiple of its size."""
    off = addresses & np.uint64(size - 1)
    if off.any():
        bad = int(np.flatnonzero(off)[0])
        where = f"address {int(addresses[bad]):#x}, {size} bytes"
        raise MemoryFaultError(f"{where}: misaligned, thread {threads[bad]}")
