"""An interpreter of PTX, so that the very code that nvcc made for a GPU can be tested without one.

    module = parse(text)
    memory = Memory()
    data = memory.add(array)
    launch(module.kernels["name"], grid=4, block=256, arguments=[data, len(array)], memory=memory)

Modelled: all arithmetic to the bit (one rounding where PTX says so, the NaN of float32, clamped conversions), the
threads of a block with their divergence and reconvergence, calls, barriers, collectives of warps, atomics, the memory
spaces and generic addresses. Wrong accesses are errors: out of bounds, misaligned, to read-only memory, of shared
memory that nobody wrote, races of warps on shared memory, barriers that not all reach, lanes that do not come.

Not modelled: blocks that run at the same time, weak ordering of memory (a missing __threadfence is seen by no one),
races within a warp and on global memory, caches (so `.nc` reads what is there), timing, the registers that a GPU has,
payloads of float64 NaNs, registers read before they are written (they hold anything), recursion, and every instruction
that raises UnsupportedError. Buffers that overlap are refused: add the storage of tensors that share it once.
"""

from ptx.errors import DeadlockError, MemoryFaultError, PtxError, RaceError, UnsupportedError
from ptx.launch import Statistics, launch
from ptx.memory import Memory, SparseBuffer
from ptx.parser import parse
from ptx.syntax import Kernel, Module

__all__ = [
    "DeadlockError",
    "Kernel",
    "Memory",
    "MemoryFaultError",
    "Module",
    "PtxError",
    "RaceError",
    "SparseBuffer",
    "Statistics",
    "UnsupportedError",
    "launch",
    "parse",
]
