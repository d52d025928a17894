"""Schedules as a GPU has them, made by the kernels of samples/core.cu."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from clr_native import CyclicSchedule, RampSchedule
from ptx import Kernel, Memory, launch
from ptx.types import Array
from toolkit import SAMPLES, compiled

CORE = SAMPLES / "core.cu"
ASKED = np.dtype(
    [(name, "f8") for name in ("base_lr", "max_lr", "base_momentum", "max_momentum", "gamma")]
    + [(name, "u8") for name in ("up", "down", "decay_steps")]
    + [(name, "i4") for name in ("curve", "window", "mode", "decay_base")]
    + [("lead", "f8", 2), ("length", "f8", 2)]
)
ROOM_FOR_A_PIECE = 256  # bytes
WINDOWS = ["triangular", "welch", "hann"]
MODES = ["triangular", "triangular2", "exp_range", "exp_cycle", "linear_range", "scale_fn"]


def kernel(name: str) -> Kernel:
    return compiled(CORE).kernels[name]


def asked(schedule: CyclicSchedule | RampSchedule) -> Array:
    row = np.zeros(1, ASKED)
    row["gamma"] = 1.0
    if isinstance(schedule, RampSchedule):
        low, high = sorted((schedule.start_lr, schedule.end_lr))
        exponential = schedule.ramp == "exponential"
        row["base_lr"], row["max_lr"] = (schedule.start_lr, schedule.end_lr) if exponential else (low, high)
        row["curve"] = 3 if exponential else 1 if schedule.start_lr == low else 2
        row["base_momentum"] = row["max_momentum"] = math.nan
        row["length"] = [schedule.num_steps, 0]
        row["up"] = row["down"] = row["decay_steps"] = 1
        return row
    for name in ("base_lr", "max_lr", "base_momentum", "max_momentum", "gamma", "decay_base"):
        row[name] = getattr(schedule, name)
    row["up"] = schedule.step_size_up
    row["down"] = schedule.step_size_down or schedule.step_size_up
    row["decay_steps"] = schedule.decay_steps or 1
    row["window"] = WINDOWS.index(schedule.window)
    row["mode"] = MODES.index("scale_fn" if schedule.scale_fn else schedule.mode)
    return row


def pieces_of(schedules: Sequence[CyclicSchedule | RampSchedule]) -> Array:
    memory = Memory()
    made = np.zeros(ROOM_FOR_A_PIECE * len(schedules), np.uint8)
    what = np.concatenate([asked(schedule) for schedule in schedules])
    launch(kernel("make_pieces"), 1, 64, [memory.add(what), len(what), memory.add(made)], memory)
    return made
