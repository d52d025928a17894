"""A million values of lr and momentum: from us, from numpy and from torch's scheduler."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.optim.lr_scheduler import CyclicLR

from bench.harness.contenders import OURS
from bench.harness.names import NUMPY, OUT, TORCH_SCHEDULER
from clr_native import CyclicSchedule, evaluate

Values = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

# Cold: a new array is new pages from the system, as in a short script. Warm: it is memory freed before.
Memory = Literal["cold", "warm"]
MEMORIES: tuple[Memory, ...] = ("cold", "warm")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_GLIBC_THRESHOLDS: dict[Memory, tuple[int, int]] = {"cold": (2**17, 2**17), "warm": (2**25, 2**30)}

BASE_LR, MAX_LR = 1e-4, 6e-4
BASE_MOMENTUM, MAX_MOMENTUM = 0.8, 0.9
STEP_SIZE = 2000
GAMMA = 0.99994


@dataclass(frozen=True)
class Work:
    """``groups`` schedules at ``steps`` steps; more than one have bounds and step sizes of their own."""

    groups: int
    steps: int
    window: str = "triangular"
    mode: str = "triangular"

    @property
    def title(self) -> str:
        return f"{self.groups} x {self.steps}: {self.window} {self.mode}"

    @property
    def torch_has_it(self) -> bool:
        return self.groups == 1 and self.window == "triangular"


# Cycles that are all the same can be repeated; in triangular2 and exp_range no two are.
WORKS = (
    Work(1, 1_000_000),
    Work(1, 1_000_000, mode="triangular2"),
    Work(1, 1_000_000, mode="exp_range"),
    Work(1, 1_000_000, window="welch", mode="triangular2"),
    Work(1, 1_000_000, window="hann", mode="triangular2"),
    Work(1000, 1000),
    Work(1000, 1000, mode="exp_range"),
    Work(1000, 1000, window="welch"),
    Work(1000, 1000, window="hann"),
)


class Bulk:
    """One work's million values, by each contender."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.gamma = GAMMA if work.mode == "exp_range" else 1.0
        self.sizes = STEP_SIZE + np.arange(work.groups)[:, None]
        self.base_lrs = BASE_LR * (1 + np.arange(work.groups) / work.groups)[:, None]
        self.schedules = [
            CyclicSchedule(
                float(base_lr),
                MAX_LR,
                step_size_up=int(size),
                mode=work.mode,
                gamma=self.gamma,
                window=work.window,
                base_momentum=BASE_MOMENTUM,
                max_momentum=MAX_MOMENTUM,
            )
            for base_lr, size in zip(self.base_lrs.flat, self.sizes.flat, strict=True)
        ]
        shape = (work.groups, work.steps)
        self.out = (np.empty(shape), np.empty(shape))
        self.contenders: dict[str, Callable[[], Values]] = {
            OURS: self.ours,
            OUT: self.ours_out,
            NUMPY: self.numpy_formula,
        }
        if work.torch_has_it:
            self.contenders[TORCH_SCHEDULER] = self.torch_replay

    def ours(self) -> Values:
        """Into new arrays: in cold memory the page faults of 16 MB are part of it, as they are of numpy's."""
        return evaluate(self.schedules, self.work.steps)

    def ours_out(self) -> Values:
        """Into arrays the caller keeps."""
        return evaluate(self.schedules, self.work.steps, out=self.out)

    def numpy_formula(self) -> Values:
        """The formula of most tutorials on cyclical rates; float64 rounds it at every operation."""
        iterations = np.arange(self.work.steps)
        cycle = np.floor(1 + iterations / (2 * self.sizes))
        x = np.abs(iterations / self.sizes - 2 * cycle + 1)
        scale = np.maximum(0.0, 1 - x)
        if self.work.window == "welch":
            scale *= 2 - scale
        if self.work.window == "hann":
            scale = np.sin(np.pi / 2 * scale) ** 2
        if self.work.mode == "triangular2":
            scale *= 0.5 ** (cycle - 1)
        if self.work.mode == "exp_range":
            scale *= self.gamma**iterations
        lr = self.base_lrs + (MAX_LR - self.base_lrs) * scale
        momentum = MAX_MOMENTUM - (MAX_MOMENTUM - BASE_MOMENTUM) * scale
        return lr, momentum

    def torch_replay(self, steps: int | None = None) -> Values:
        """The only way torch has: step the scheduler and write down what stands in the group."""
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=BASE_LR, momentum=MAX_MOMENTUM)
        scheduler = CyclicLR(
            optimizer,
            BASE_LR,
            MAX_LR,
            step_size_up=STEP_SIZE,
            mode=self.work.mode,  # type: ignore[arg-type]  # one of torch's three
            gamma=self.gamma,
            base_momentum=BASE_MOMENTUM,
            max_momentum=MAX_MOMENTUM,
        )
        optimizer.step()  # the scheduler would warn without it; there is no gradient, so it does nothing
        group = optimizer.param_groups[0]
        lr: list[float] = []
        momentum: list[float] = []
        for _ in range(self.work.steps if steps is None else steps):
            lr.append(group["lr"])
            momentum.append(group["momentum"])
            scheduler.step()
        return np.array([lr]), np.array([momentum])

    def reference(self, steps: int | None = None) -> Values:
        """What values are verified against: torch's own, or the numpy formula where torch has none."""
        return self.torch_replay(steps) if self.work.torch_has_it else self.numpy_formula()


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
    """Within the bound of design.md section 4 for T = 2 * STEP_SIZE, whose error is all the reference's.

    Twice that, since the slope of a window is up to 2.
    """
    for found, wanted, amplitude in zip(
        values, reference, (MAX_LR - BASE_LR, MAX_MOMENTUM - BASE_MOMENTUM), strict=True
    ):
        length = wanted.shape[1]
        cycles = np.arange(length) / (2 * STEP_SIZE)
        bound = 2 * (amplitude * 2.0**-52 * (cycles + 4) * 2 + 2 * np.spacing(np.abs(wanted)))
        excess = np.abs(found[:, :length] - wanted) / bound
        assert excess.max() <= 1, f"value {excess.argmax()}: {excess.max():.2f} times the bound"
