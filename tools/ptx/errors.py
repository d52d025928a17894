"""What goes wrong in a launch, each by its name."""

from __future__ import annotations


class PtxError(Exception):
    """A kernel did what it must not; the text names the instruction, its line, the block and a thread."""


class UnsupportedError(PtxError):
    """An instruction, modifier or directive that the interpreter does not know."""


class MemoryFaultError(PtxError):
    """An access outside of everything allocated, misaligned, to read-only memory, or of shared memory never written."""


class RaceError(PtxError):
    """Two warps touch the same shared memory, one of them writing, with no barrier between."""


class DeadlockError(PtxError):
    """Threads wait for others that will not come."""
