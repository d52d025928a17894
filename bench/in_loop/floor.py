"""The least that a step inside a loop costs: gradients read, version counters raised, and a bare loop in C."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.harness.contenders import WEIGHT_DECAY
from bench.harness.rounds import seconds
from bench.step.floor import Job, Piece, compiled, cut, library, torch_parallel_for

FLOAT_BYTES = 4


@cache
def read_gradients() -> Callable[[Any, list[Tensor]], list[Tensor]]:
    function = compiled(__file__, "reading.c", ctypes.PyDLL).read_gradients
    function.argtypes, function.restype = (ctypes.py_object, ctypes.py_object), ctypes.py_object
    return function


class Floor:
    """An SGD over fixed parameters, which checks nothing. With averages: the whole tail, over scaled gradients."""

    def __init__(self, parameters: Sequence[Tensor], averages: Sequence[Tensor], scale: float, tail: dict[str, float]):
        self.parameters, self.threads = list(parameters), torch.get_num_threads()
        self.buffers = [torch.zeros_like(each, requires_grad=False) for each in parameters]
        self.averages = list(averages)
        shares = cut([each.numel() for each in parameters], self.threads)
        self.places = np.array([piece for share in shares for piece in share])
        self.pieces = np.zeros(len(self.places), np.dtype(Piece))
        tensors, begins, ends = self.places.T
        for name, arrays in (
            ("parameter", parameters),
            ("momentum_buffer", self.buffers),
            ("average", self.averages),
        ):
            if arrays:
                self.pieces[name] = addresses(arrays)[tensors] + FLOAT_BYTES * begins
        self.pieces["length"] = ends - begins
        first = np.cumsum([0, *map(len, shares)], dtype=np.int64)
        self.job = Job(weight_decay=WEIGHT_DECAY, scale=1 / scale, coefficient=1.0, **tail)
        self.kept = (first, np.zeros(self.threads))  # the job points to them
        self.job.pieces = ctypes.cast(self.pieces.ctypes.data, ctypes.POINTER(Piece))
        self.job.first = ctypes.cast(first.ctypes.data, ctypes.POINTER(ctypes.c_int64))
        self.job.squares = ctypes.cast(self.kept[1].ctypes.data, ctypes.POINTER(ctypes.c_double))

    def step(self, lr: float, momentum: float | None) -> float:
        """Makes one update. Returns the seconds that it took, without those in which pointers were found."""
        self.job.lr, self.job.momentum = lr, momentum
        gradients: list[Tensor] = []

        def read() -> None:
            gradients.extend(read_gradients()(torch.Tensor.grad, self.parameters))
            torch.autograd.graph.increment_version(self.parameters)

        took = seconds(read)
        tensors, begins, _ = self.places.T
        self.pieces["gradient"] = addresses(gradients)[tensors] + FLOAT_BYTES * begins
        return took + seconds(self._update) + seconds(gradients.clear)

    def _update(self) -> None:
        run = library().floor_whole_step if self.averages else library().floor_step
        if failed := run(ctypes.byref(self.job), ctypes.c_int64(self.threads), torch_parallel_for()):
            raise RuntimeError(f"torch_parallel_for returned {failed=}")


def addresses(tensors: Sequence[Tensor]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array([each.data_ptr() for each in tensors], np.int64)
