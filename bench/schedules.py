"""The lr and momentum of a million steps: from us, from numpy and from torch's scheduler."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.optim.lr_scheduler import CyclicLR

from bench.contenders import OURS
from clr_native import CyclicSchedule, evaluate

Values = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

# Every cycle of the first is the same, so it can be repeated; no two values of the second are.
Mode = Literal["triangular", "exp_range"]
MODES: tuple[Mode, ...] = ("triangular", "exp_range")

# Cold: a new array is new pages from the system, as in a short script. Warm: it is memory freed before.
Memory = Literal["cold", "warm"]
MEMORIES: tuple[Memory, ...] = ("cold", "warm")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_GLIBC_THRESHOLDS: dict[Memory, tuple[int, int]] = {"cold": (2**17, 2**17), "warm": (2**25, 2**30)}

STEPS = 1_000_000
BASE_LR, MAX_LR = 1e-4, 6e-4
BASE_MOMENTUM, MAX_MOMENTUM = 0.8, 0.9
STEP_SIZE = 2000
GAMMA = 0.99994

OUT, NUMPY, TORCH = f"{OURS}, out=", "numpy formula", "torch CyclicLR"


class Bulk:
    """One mode's million values, by each contender."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.gamma = GAMMA if mode == "exp_range" else 1.0
        self.schedule = CyclicSchedule(
            BASE_LR,
            MAX_LR,
            step_size_up=STEP_SIZE,
            mode=mode,
            gamma=self.gamma,
            base_momentum=BASE_MOMENTUM,
            max_momentum=MAX_MOMENTUM,
        )
        self.out = (np.empty((1, STEPS)), np.empty((1, STEPS)))
        self.contenders: dict[str, Callable[[], Values]] = {
            OURS: self.ours,
            OUT: self.ours_out,
            NUMPY: self.numpy_formula,
            TORCH: self.torch_replay,
        }

    def ours(self) -> Values:
        """Into new arrays: in cold memory the page faults of 16 MB are part of it, as they are of numpy's."""
        lr, momentum = evaluate([self.schedule], STEPS)
        return lr[0], momentum[0]

    def ours_out(self) -> Values:
        """Into arrays the caller keeps."""
        lr, momentum = evaluate([self.schedule], STEPS, out=self.out)
        return lr[0], momentum[0]

    def numpy_formula(self) -> Values:
        """The formula of most tutorials on cyclical rates; float64 rounds it at every operation."""
        iterations = np.arange(STEPS)
        cycle = np.floor(1 + iterations / (2 * STEP_SIZE))
        x = np.abs(iterations / STEP_SIZE - 2 * cycle + 1)
        scale = np.maximum(0.0, 1 - x)
        if self.mode == "exp_range":
            scale *= self.gamma**iterations
        lr = BASE_LR + (MAX_LR - BASE_LR) * scale
        momentum = MAX_MOMENTUM - (MAX_MOMENTUM - BASE_MOMENTUM) * scale
        return lr, momentum

    def torch_replay(self, steps: int = STEPS) -> Values:
        """The only way torch has: step the scheduler and write down what stands in the group."""
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE_LR, momentum=MAX_MOMENTUM)
        scheduler = CyclicLR(
            optimizer,
            BASE_LR,
            MAX_LR,
            step_size_up=STEP_SIZE,
            mode=self.mode,
            gamma=self.gamma,
            base_momentum=BASE_MOMENTUM,
            max_momentum=MAX_MOMENTUM,
        )
        optimizer.step()  # the scheduler would warn without it; there is no gradient, so it does nothing
        group = optimizer.param_groups[0]
        lr: list[float] = []
        momentum: list[float] = []
        for _ in range(steps):
            lr.append(group["lr"])
            momentum.append(group["momentum"])
            scheduler.step()
        return np.array(lr), np.array(momentum)


def allocate(memory: Memory) -> None:
    """Say where new arrays come from, before any are made; only glibc can be told.

    Left alone it goes from cold to warm and back with the order of earlier calls: a factor of two or three.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "mallopt"):
        mmap_threshold, trim_threshold = _GLIBC_THRESHOLDS[memory]
        libc.mallopt(_M_MMAP_THRESHOLD, mmap_threshold)
        libc.mallopt(_M_TRIM_THRESHOLD, trim_threshold)


def verify(values: Values, reference: Values) -> None:
    """Within the bound of design.md section 4 for T = 2 * STEP_SIZE, whose error is all the reference's."""
    length = len(reference[0])
    cycles = np.arange(length) / (2 * STEP_SIZE)
    for found, wanted, amplitude in zip(
        values, reference, (MAX_LR - BASE_LR, MAX_MOMENTUM - BASE_MOMENTUM), strict=True
    ):
        bound = amplitude * 2.0**-52 * (cycles + 4) * 2 + 2 * np.spacing(np.abs(wanted))
        excess = np.abs(found[:length] - wanted) / bound
        assert excess.max() <= 1, f"step {excess.argmax()}: {excess.max():.2f} times the bound"
