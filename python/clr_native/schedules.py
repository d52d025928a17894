"""Schedules as values: immutable, plain, evaluated by the native core."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clr_native import _core
from clr_native.evaluation import FloatArray, Steps, checked_step, evaluate

MODES = ("triangular", "triangular2", "exp_range", "exp_cycle", "linear_range")
WINDOWS = ("triangular", "welch", "hann")
SCALE_MODES = ("cycle", "iterations")

_LARGEST_SIZE = 2**53 - 1

# Between these no product on the way to a value leaves the range in which double-double arithmetic is exact.
_SMALLEST_BOUNDARY, _LARGEST_LR = 1e-270, 1e270


class ScheduleValue(NamedTuple):
    """Learning rate and momentum of one update; ``momentum`` is None where the schedule has none."""

    lr: float
    momentum: float | None


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}={value!r} must be a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}={value!r} must be within the range of a float") from None


def _size(name: str, value: object) -> int:
    """A count of steps: an int or a whole float, 1 to 2**53 - 1."""
    number = _number(name, value)
    if not math.isfinite(number) or number != int(number) or not 1 <= number <= _LARGEST_SIZE:
        raise ValueError(f"{name}={value!r} must be a whole number of steps from 1 to 2**53 - 1")
    return int(number)


def _choice(name: str, value: object, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, choices))}")


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be True or False")


def _boundaries(name: str, low: float, high: float, most: float) -> None:
    for prefix, value in (("base", low), ("max", high)):
        if value != 0.0 and not _SMALLEST_BOUNDARY <= value <= most:
            raise ValueError(f"{prefix}_{name}={value!r} must be 0 or from {_SMALLEST_BOUNDARY} to {most}")
    if low > high:
        raise ValueError(f"base_{name}={low!r} must not be above max_{name}={high!r}")


@dataclasses.dataclass(frozen=True)
class CyclicSchedule:
    """Cyclical learning rate and momentum between two boundaries (Smith, 2017).

    With ``T = step_size_up + step_size_down``, cycle ``k = step // T`` and ``p = step % T``, all counted in steps
    (optimizer updates, not epochs) from 0::

        s = p / step_size_up               for p <= step_size_up       phase: 0 at bottoms, 1 at the peak
            (T - p) / step_size_down       for p >= step_size_up
        w = s                              window="triangular"
            s * (2 - s)                    window="welch"
            sin(pi * s / 2)**2             window="hann"
        a = 1                              mode="triangular"
            2**-k                          mode="triangular2"
            gamma**step                    mode="exp_range"
            gamma**k                       mode="exp_cycle"
            max(0, 1 - step / decay_steps) mode="linear_range"
            scale_fn(k + 1) or scale_fn(step)                          scale_mode="cycle" or "iterations"
        lr       = base_lr + (max_lr - base_lr) * w * a
        momentum = max_momentum - (max_momentum - base_momentum) * w * a

    Values are float64, carried in double-double and rounded once: the triangular window is correctly rounded for every
    step from 0 to 2**63 - 2, the others are within 1 ulp (exp modes 2). ``base_lr`` at bottoms and ``max_lr`` at peaks
    are met exactly, and no value leaves its boundaries while ``0 <= a <= 1``. Two exceptions: triangular values below
    2**-1020 are within 1 ulp, and where ``a`` is above 1, momentum may be off by another ``2**-96 * max_momentum``,
    which shows where it comes out near 0.

    Args:
        base_lr, max_lr: the boundaries of the learning rate, ``base_lr <= max_lr``, each 0 or from 1e-270 to 1e270.
            Equal: constant.
        step_size_up: steps of the rising half, an int or whole float from 1 to 2**53 - 1.
        step_size_down: steps of the falling half; None means ``step_size_up``.
        mode: how the amplitude shrinks, see above. ``"exp_range"`` counts steps from the start of training, as torch
            does (its documentation says otherwise). Idle with a ``scale_fn``.
        gamma: base of the exp modes, finite and above 0; idle in others. Above 1 values may leave the boundaries.
        decay_steps: steps until the amplitude of ``"linear_range"`` is zero; required there, idle in others.
        decay_base: let ``base_lr`` shrink by ``a`` too, which is the paper's own wording of exp_range ("each boundary
            value declines"). The default keeps it, as every implementation does. Momentum is not concerned.
        scale_fn: a function of an int that gives ``a`` as a float. Takes precedence over ``mode``.
        scale_mode: what ``scale_fn`` is called with: ``"cycle"``, counted from 1, or ``"iterations"``, the step from 0.
            Idle without ``scale_fn``.
        window: the curve within a cycle, in the paper's terms.
        cycle_momentum: let momentum swing the other way. False: the schedule has no momentum.
        base_momentum, max_momentum: its boundaries, ``base_momentum <= max_momentum``, each 0 or from 1e-270 to 1; idle
            without.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: an argument is out of its range or unknown.

    >>> schedule = CyclicSchedule(0.1, 0.5, step_size_up=4, cycle_momentum=False)
    >>> [schedule(step).lr for step in (0, 2, 4, 6, 8)]
    [0.1, 0.3, 0.5, 0.3, 0.1]
    >>> lr, momentum = CyclicSchedule(0.1, 0.5, step_size_up=2, mode="triangular2").values(7)
    >>> lr.tolist()
    [0.1, 0.3, 0.5, 0.3, 0.1, 0.2, 0.3]
    >>> CyclicSchedule(0.1, 0.5, step_size_up=0)
    Traceback (most recent call last):
    ...
    ValueError: step_size_up=0 must be a whole number of steps from 1 to 2**53 - 1

    Source: L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186.
    """

    base_lr: float
    max_lr: float
    _: dataclasses.KW_ONLY
    step_size_up: int = 2000
    step_size_down: int | None = None
    mode: str = "triangular"
    gamma: float = 1.0
    decay_steps: int | None = None
    decay_base: bool = False
    scale_fn: Callable[[int], float] | None = None
    scale_mode: str = "cycle"
    window: str = "triangular"
    cycle_momentum: bool = True
    base_momentum: float = 0.8
    max_momentum: float = 0.9

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        for name in ("base_lr", "max_lr", "gamma", "base_momentum", "max_momentum"):
            put(name, _number(name, getattr(self, name)))
        put("step_size_up", _size("step_size_up", self.step_size_up))
        for name in ("step_size_down", "decay_steps"):
            if getattr(self, name) is not None:
                put(name, _size(name, getattr(self, name)))
        _boundaries("lr", self.base_lr, self.max_lr, _LARGEST_LR)
        _boundaries("momentum", self.base_momentum, self.max_momentum, 1.0)
        _choice("mode", self.mode, MODES)
        _choice("window", self.window, WINDOWS)
        _choice("scale_mode", self.scale_mode, SCALE_MODES)
        _flag("cycle_momentum", self.cycle_momentum)
        _flag("decay_base", self.decay_base)
        if not (math.isfinite(self.gamma) and self.gamma > 0.0):
            raise ValueError(f"gamma={self.gamma!r} must be finite and above 0")
        if self.scale_fn is not None and not callable(self.scale_fn):
            raise TypeError(f"scale_fn={self.scale_fn!r} must be callable or None")
        if self.mode == "linear_range" and self.scale_fn is None and self.decay_steps is None:
            raise ValueError("decay_steps=None must be the steps until mode='linear_range' has decayed to zero")

    def __call__(self, step: int) -> ScheduleValue:
        """The value of update number ``step``, from 0 to 2**63 - 2.

        >>> CyclicSchedule(0.001, 0.006)(2000)
        ScheduleValue(lr=0.006, momentum=0.8)
        """
        step = checked_step(step)
        lr, momentum = self.values(range(step, step + 1))
        return ScheduleValue(float(lr[0]), float(momentum[0]) if self.cycle_momentum else None)

    def values(self, steps: Steps) -> tuple[FloatArray, FloatArray]:
        """Arrays ``(lr, momentum)`` of float64, one value a step; momentum is NaN where there is none.

        ``steps`` is a count (steps 0 to count - 1), a range, or a one-dimensional integer array.
        """
        lr, momentum = evaluate([self], steps)
        return lr[0], momentum[0]

    @property
    def cycle_length(self) -> int:
        """Steps of one full cycle."""
        return self.step_size_up + self._down

    @property
    def _down(self) -> int:
        return self.step_size_up if self.step_size_down is None else self.step_size_down

    def to_dict(self) -> dict[str, Any]:
        """Plain data that ``from_dict`` takes back. Raises TypeError with a ``scale_fn``: functions are not data."""
        if self.scale_fn is not None:
            raise TypeError(
                f"scale_fn={self.scale_fn!r} cannot be saved as plain data: "
                "save the other arguments and pass it again to from_dict(d, scale_fn=...)"
            )
        return self._to_dict()

    def _to_dict(self) -> dict[str, Any]:
        """As ``to_dict``, with ``scale_fn`` as a mark that one is needed."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"kind": "cyclic", **plain, "scale_fn": self.scale_fn is not None}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], scale_fn: Callable[[int], float] | None = None) -> CyclicSchedule:
        """The schedule that ``to_dict`` wrote down; one with a ``scale_fn`` needs it again.

        >>> schedule = CyclicSchedule(0.1, 0.5, mode="exp_range", gamma=0.999)
        >>> CyclicSchedule.from_dict(schedule.to_dict()) == schedule
        True
        """
        if not isinstance(d, Mapping):
            raise TypeError(f"d={d!r} must be a dict that to_dict() gave")
        arguments = dict(d)
        kind = arguments.pop("kind", "cyclic")
        if kind != "cyclic":
            raise ValueError(f"kind={kind!r} must be 'cyclic' for a CyclicSchedule")
        if arguments.pop("scale_fn", False) and scale_fn is None:
            raise ValueError("scale_fn=None: this schedule was saved without its scale_fn, pass the function again")
        unknown = arguments.keys() - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"{min(unknown)}={arguments[min(unknown)]!r} is not an argument of CyclicSchedule")
        return cls(**arguments, scale_fn=scale_fn)

    @functools.cached_property
    def _policy(self) -> _core.Policy:
        return _core.Policy(
            up=self.step_size_up,
            down=self._down,
            base_lr=self.base_lr,
            max_lr=self.max_lr,
            base_momentum=self.base_momentum if self.cycle_momentum else None,
            max_momentum=self.max_momentum if self.cycle_momentum else None,
            window=self.window,
            mode=self.mode if self.scale_fn is None else "scale_fn",
            gamma=self.gamma,
            decay_steps=self.decay_steps or 1,
            decay_base=self.decay_base,
            scale_by_cycle=self.scale_mode == "cycle",
        )

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _scales(self, steps: range | npt.NDArray[np.int64]) -> FloatArray | None:
        """What ``scale_fn`` gives at each step, called once for each cycle or iteration; None without one."""
        if self.scale_fn is None:
            return None
        if self.scale_mode == "iterations":
            arguments = np.asarray(steps, dtype=np.int64)
        else:
            arguments = np.asarray(steps, dtype=np.int64) // self.cycle_length + 1
        distinct, place = np.unique(arguments, return_inverse=True)
        scales = np.array([self._scale(int(argument)) for argument in distinct], dtype=np.float64)
        return np.ascontiguousarray(scales[place])

    def _scale(self, argument: int) -> float:
        assert self.scale_fn is not None
        scale = self.scale_fn(argument)
        try:
            if not isinstance(scale, str):
                return float(scale)
        except (TypeError, ValueError):
            pass
        raise TypeError(f"scale_fn({argument})={scale!r} must be a number")
