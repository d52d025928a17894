"""Bulk evaluation: many schedules at many steps in one native call."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from clr_native import _core
from clr_native.checks import checked_step

FloatArray: TypeAlias = npt.NDArray[np.float64]
Steps: TypeAlias = int | range | npt.NDArray[np.integer[Any]] | Sequence[int]


class Evaluated(Protocol):
    """The part of a ``Schedule`` that gives its values."""

    @property
    def _native(self) -> _core.Schedule: ...
    @property
    def _scale_fns(self) -> tuple[Callable[[int], float] | None, ...]: ...
    def _scales(self, steps: range | npt.NDArray[np.int64]) -> FloatArray | None: ...


def _checked_schedules(schedules: Iterable[Evaluated]) -> list[Evaluated]:
    if not isinstance(schedules, Iterable):
        raise TypeError(f"schedules={schedules!r} must be a sequence of schedules")
    schedules = list(schedules)
    for schedule in schedules:
        if not hasattr(schedule, "_native"):
            raise TypeError(f"schedules: {schedule!r} must be a schedule such as CyclicSchedule(...)")
    return schedules


def _checked_steps(steps: Steps) -> range | npt.NDArray[np.int64]:
    """Returns the steps as a range with step 1 or an int64 array."""
    if isinstance(steps, numbers.Integral) and not isinstance(steps, bool):
        if steps < 0:
            raise ValueError(f"steps={steps!r} must be a count of steps, 0 or more")
        steps = range(int(steps))
    if isinstance(steps, range):
        if not steps:
            return range(0)
        first, last = checked_step(steps[0]), checked_step(steps[-1])
        if steps.step == 1 or first == last:
            return range(first, last + 1)
        return first + steps.step * np.arange(len(steps), dtype=np.int64)
    try:
        array = np.asarray(steps)
    except ValueError:
        raise TypeError(f"steps={steps!r} must be a count, a range or a one-dimensional integer array") from None
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        raise TypeError(
            f"steps with shape={array.shape} and dtype={array.dtype} must be a count, a range "
            "or a one-dimensional integer array"
        )
    if array.size:
        checked_step(int(array.min()))
        checked_step(int(array.max()))
    return np.ascontiguousarray(array, dtype=np.int64)


def _checked_out(out: object, shape: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError("out must be a pair of arrays (lr, momentum)")
    for name, array in zip(("lr", "momentum"), out, strict=True):
        if not isinstance(array, np.ndarray) or array.dtype != np.float64:
            raise TypeError(f"out: {name} with dtype={getattr(array, 'dtype', None)} must be a float64 array")
        if array.shape != shape or not array.flags.c_contiguous or not array.flags.writeable:
            raise ValueError(f"out: {name} with shape={array.shape} must be writeable, C-contiguous, of shape {shape}")
    if np.shares_memory(*out):
        raise ValueError("out: lr and momentum must not share memory")
    return out


def invalid_value(which: str, step: int, lr: float, momentum: float) -> ValueError:
    """Returns the error for a value that no optimizer may be given."""
    return ValueError(
        f"{which} at step={step} gives lr={lr} momentum={momentum}: "
        "lr must be finite and not negative, momentum between 0 and 1"
    )


def evaluate(
    schedules: Sequence[Evaluated], steps: Steps, out: tuple[FloatArray, FloatArray] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Values of G schedules at S steps in one native call.

    Args:
        schedules: G schedules.
        steps: a count (steps 0 to count - 1), a range, or a one-dimensional integer array of S steps.
        out: a pair of C-contiguous float64 arrays of shape (G, S) to fill instead of new ones.

    Returns:
        ``lr[G, S]`` and ``momentum[G, S]``, float64; momentum is NaN where a schedule has none.

    Raises:
        TypeError, ValueError: an argument is not as described, or some value is one that no optimizer can use: a
            learning rate that is negative or not finite, a momentum outside [0, 1].

    >>> from clr_native import CyclicSchedule
    >>> lr, momentum = evaluate([CyclicSchedule(0.1, 0.5, step_size_up=2), CyclicSchedule(0, 1, step_size_up=1)], 5)
    >>> lr.tolist()
    [[0.1, 0.3, 0.5, 0.3, 0.1], [0.0, 1.0, 0.0, 1.0, 0.0]]
    """
    schedules = _checked_schedules(schedules)
    checked = _checked_steps(steps)
    shape = (len(schedules), len(checked))
    lr, momentum = (np.empty(shape), np.empty(shape)) if out is None else _checked_out(out, shape)
    natives = [schedule._native for schedule in schedules]
    scales = [schedule._scales(checked) if schedule._scale_fns else None for schedule in schedules]
    if isinstance(checked, range):
        invalid = _core.fill_range(natives, checked.start, scales, lr, momentum)
    else:
        invalid = _core.fill_steps(natives, checked, scales, lr, momentum)
    if invalid is not None:
        which = f"schedule {invalid[0]}" if len(schedules) > 1 else "the schedule"
        raise invalid_value(which, int(checked[invalid[1]]), float(lr[invalid]), float(momentum[invalid]))
    return lr, momentum
