"""How far down one could go: a bare loop in C, and the reading of the gradients in Python."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from sysconfig import get_path

import torch
from torch import Tensor

from bench.harness.contenders import MAX_MOMENTUM, VERIFIED_STEPS, WEIGHT_DECAY, bounds, build, equal
from bench.harness.workloads import Gradients, Refilled, Tensors, Workload
from bench.whole_step import chain

# The work list is cut at whole cache lines, so that no two threads write the same one.
ELEMENTS_PER_LINE = 16


class Piece(ctypes.Structure):
    """``piece`` of floor.c."""

    _fields_ = (
        ("parameter", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
        ("momentum_buffer", ctypes.c_void_p),
        ("average", ctypes.c_void_p),
        ("length", ctypes.c_int64),
    )


class Job(ctypes.Structure):
    """``job`` of floor.c."""

    _fields_ = (
        ("pieces", ctypes.POINTER(Piece)),
        ("first", ctypes.POINTER(ctypes.c_int64)),
        ("lr", ctypes.c_float),
        ("momentum", ctypes.c_float),
        ("weight_decay", ctypes.c_float),
        ("scale", ctypes.c_float),
        ("coefficient", ctypes.c_float),
        ("average_weight", ctypes.c_float),
        ("max_norm", ctypes.c_double),
        ("squares", ctypes.POINTER(ctypes.c_double)),
    )


def available() -> bool:
    return shutil.which("cc") is not None and sys.platform != "win32"


def compiled(module: str, name: str, kind: type[ctypes.CDLL]) -> ctypes.CDLL:
    """Compiles and loads a C file that stands beside a module.

    -march=native lets the floor be as low as this very processor allows; the code runs here only. -ffp-contract=off
    keeps a product and a sum two roundings, for the floor's weights are compared with torch's bit by bit. The include
    folder is that of Python.h, which reading.c needs.
    """
    source = Path(module).with_name(name)
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "compiled.so")
        flags = ["-O3", "-march=native", "-ffp-contract=off", "-fPIC", "-shared", f"-I{get_path('include')}"]
        subprocess.run(["cc", *flags, str(source), "-o", str(built), "-lm"], check=True)
        return kind(str(built))


@cache
def library() -> ctypes.CDLL:
    return compiled(__file__, "floor.c", ctypes.CDLL)


@cache
def torch_parallel_for() -> ctypes.c_void_p:
    name = {"darwin": "libtorch_cpu.dylib"}.get(sys.platform, "libtorch_cpu.so")
    torch_cpu = ctypes.CDLL(str(Path(torch.__file__).with_name("lib") / name))
    return ctypes.cast(torch_cpu.torch_parallel_for, ctypes.c_void_p)


def cut(lengths: Sequence[int], threads: int) -> list[list[tuple[int, int, int]]]:
    """For each thread its (tensor, begin, end): equal shares of all elements, cut at whole cache lines."""
    shares: list[list[tuple[int, int, int]]] = [[] for _ in range(threads)]
    size = -(-sum(lengths) // threads)
    position = 0
    for tensor, length in enumerate(lengths):
        begin = 0
        while begin < length:
            thread = position // size
            lines_left = -(-((thread + 1) * size - position) // ELEMENTS_PER_LINE)
            end = min(length, begin + lines_left * ELEMENTS_PER_LINE)
            shares[thread].append((tensor, begin, end))
            position += end - begin
            begin = end
    return shares


class Floor:
    """The bare loop over given parameters and buffers; one table of pointers for each gradient set.

    With averages, the whole step's: two loops, over scaled gradients.
    """

    def __init__(
        self,
        tensors: Tensors,
        buffers: Sequence[Tensor],
        threads: int,
        lr: float,
        averages: Sequence[Tensor] | None = None,
    ) -> None:
        self.tensors, self.buffers, self.threads = tensors, list(buffers), threads
        self.averages = list(averages or [])
        self.squares = (ctypes.c_double * threads)()
        self.jobs = [self._job(gradients, lr) for gradients in tensors.gradients]

    def _job(self, gradients: Sequence[Tensor], lr: float) -> Job:
        parameters = self.tensors.parameters
        pieces: list[Piece] = []
        first = [0]
        for share in cut([parameter.numel() for parameter in parameters], self.threads):
            for tensor, begin, end in share:
                touched = [
                    parameters[tensor],
                    gradients[tensor],
                    self.buffers[tensor],
                    *self.averages[tensor : tensor + 1],
                ]
                pointers = [each.data_ptr() + 4 * begin for each in touched]
                pieces.append(Piece(*pointers, *[None] * (4 - len(pointers)), end - begin))
            first.append(len(pieces))
        return Job(
            (Piece * len(pieces))(*pieces),
            (ctypes.c_int64 * len(first))(*first),
            lr,
            MAX_MOMENTUM,
            WEIGHT_DECAY,
            1.0 / chain.SCALE,
            1.0,
            1.0 - chain.EMA_DECAY,
            chain.MAX_NORM,
            self.squares,
        )

    def step(self) -> None:
        job = self.jobs[self.tensors.current]
        run = library().floor_whole_step if self.averages else library().floor_step
        failed = run(ctypes.byref(job), ctypes.c_int64(self.threads), torch_parallel_for())
        if failed:
            raise RuntimeError(f"torch_parallel_for returned {failed=}")


def reading(tensors: Tensors) -> Callable[[], None]:
    """What a tensor costs before any arithmetic: its ``grad`` read and its version counter raised."""
    parameters = tensors.parameters
    increment_version = torch.autograd.graph.increment_version

    def step() -> None:
        [parameter.grad for parameter in parameters]
        increment_version(parameters)

    return step


def verify(workload: Workload, threads: int) -> None:
    """The floor does the whole update: its weights equal torch's loop bit for bit."""
    tensors = Tensors(workload)
    reference_tensors = Tensors(workload, tensors.gradients)
    reference = build("loop", reference_tensors)
    lr = bounds(1)[0][0]
    buffers = [torch.zeros_like(parameter, requires_grad=False) for parameter in tensors.parameters]
    floor = Floor(tensors, buffers, threads, lr)
    for _ in range(VERIFIED_STEPS):
        for group in reference.optimizer.param_groups:
            group.update(lr=lr, momentum=MAX_MOMENTUM)
        tensors.turn()
        floor.step()
        reference_tensors.turn()
        reference.step()
    equal(f"floor, {workload.name}", tensors.parameters, reference_tensors.parameters)


def verify_whole_step(workload: Workload, threads: int, gradients: Gradients) -> None:
    """The same of the whole step: weights and averages, given the norm."""
    tensors, reference_tensors = Refilled(workload, gradients), Refilled(workload, gradients)
    lr = bounds(1)[0][0]
    buffers, averages = ([torch.zeros_like(each, requires_grad=False) for each in tensors.parameters] for _ in range(2))
    floor = Floor(tensors, buffers, threads, lr, averages)
    reference = chain.build_torch(
        "loop", reference_tensors, lambda: torch.tensor(sum(floor.squares), dtype=torch.float64).sqrt()
    )
    for step in range(VERIFIED_STEPS):
        for group in reference.optimizer.param_groups:
            group.update(lr=lr, momentum=MAX_MOMENTUM)
        tensors.turn()
        floor.step()
        if step == 0:  # the first average is a copy
            torch._foreach_copy_(averages, [each.detach() for each in tensors.parameters])
        reference_tensors.turn()
        reference.step()
    equal(f"floor of the whole step, {workload.name}, weights", tensors.parameters, reference_tensors.parameters)
    equal(f"floor of the whole step, {workload.name}, averages", averages, reference.averages())
