"""The cyclical policies of Smith (2017)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from clr_native import _core
from clr_native.checks import LARGEST_LR, boundaries, choice, flag, number, size
from clr_native.schedules.advice import Check, length_in_words, number_in_words, steps_in_words
from clr_native.schedules.base import NEVER, CycleSpan, Piece, Schedule
from clr_native.schedules.scale_functions import ScaleFn, ScaleFunctions

if TYPE_CHECKING:
    from typing_extensions import Self

MODES = ("triangular", "triangular2", "exp_range", "exp_cycle", "linear_range")
WINDOWS: tuple[str, ...] = _core.WINDOWS
SCALE_MODES = ("cycle", "iterations")


@dataclasses.dataclass(frozen=True, repr=False)
class CyclicSchedule(Schedule):
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
        step_size_down: steps of the falling half; None: ``step_size_up``.
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
        base_momentum, max_momentum: the boundaries of the momentum, ``base_momentum <= max_momentum``, each 0 or from
            1e-270 to 1; idle without ``cycle_momentum``.

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

    _kind: ClassVar[str] = "cyclic"
    _sizes: ClassVar[tuple[str, ...]] = ("step_size_up", "step_size_down", "decay_steps")

    base_lr: float
    max_lr: float
    _: dataclasses.KW_ONLY
    step_size_up: int = 2000
    step_size_down: int | None = None
    mode: str = "triangular"
    gamma: float = 1.0
    decay_steps: int | None = None
    decay_base: bool = False
    scale_fn: ScaleFn | None = None
    scale_mode: str = "cycle"
    window: str = "triangular"
    cycle_momentum: bool = True
    base_momentum: float = 0.8
    max_momentum: float = 0.9

    def __post_init__(self) -> None:
        for name in ("base_lr", "max_lr", "gamma", "base_momentum", "max_momentum"):
            self._put(name, number(name, getattr(self, name)))
        self._put("step_size_up", size("step_size_up", self.step_size_up))
        for name in ("step_size_down", "decay_steps"):
            if getattr(self, name) is not None:
                self._put(name, size(name, getattr(self, name)))
        boundaries("lr", self.base_lr, self.max_lr, LARGEST_LR)
        boundaries("momentum", self.base_momentum, self.max_momentum, 1.0)
        choice("mode", self.mode, MODES)
        choice("window", self.window, WINDOWS)
        choice("scale_mode", self.scale_mode, SCALE_MODES)
        flag("cycle_momentum", self.cycle_momentum)
        flag("decay_base", self.decay_base)
        if not (math.isfinite(self.gamma) and self.gamma > 0.0):
            raise ValueError(f"gamma={self.gamma!r} must be finite and above 0")
        if self.scale_fn is not None and not callable(self.scale_fn):
            raise TypeError(f"scale_fn={self.scale_fn!r} must be callable or None")
        if self.mode == "linear_range" and self.scale_fn is None and self.decay_steps is None:
            raise ValueError("decay_steps=None must be the steps until mode='linear_range' has decayed to zero")

    @property
    def cycle_length(self) -> int:
        """Steps of one full cycle."""
        return self.step_size_up + self._down

    @property
    def _down(self) -> int:
        return self.step_size_up if self.step_size_down is None else self.step_size_down

    def _cycle_spans(self) -> list[CycleSpan]:
        return [CycleSpan(0, self.cycle_length, repeats=True)]

    def _pieces(self) -> list[Piece]:
        policy = _core.Policy.cycles(
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
        cycle_length = self.cycle_length if self.scale_mode == "cycle" else None
        return [Piece(0, NEVER, policy, self.cycle_momentum, self.scale_fn, cycle_length)]

    def _rescaled(self, factor: Fraction, **changes: Any) -> Self:
        if self.scale_fn is not None and self.scale_mode == "iterations":
            raise ValueError("scale_mode='iterations': a scale_fn that is called with steps must be rescaled by hand")
        return super()._rescaled(factor, gamma=self.gamma ** (1 / factor), **changes)

    def _functions(self) -> list[ScaleFn]:
        return [] if self.scale_fn is None else [self.scale_fn]

    def _to_dict(self) -> dict[str, Any]:
        return {**super()._to_dict(), "scale_fn": self.scale_fn is not None}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], scale_fn: ScaleFn | Sequence[ScaleFn] | None = None) -> Self:
        """The schedule that ``to_dict`` wrote down; one with a ``scale_fn`` needs it again.

        >>> schedule = CyclicSchedule(0.1, 0.5, mode="exp_range", gamma=0.999)
        >>> CyclicSchedule.from_dict(schedule.to_dict()) == schedule
        True
        """
        if callable(scale_fn) and isinstance(d, Mapping):
            d = {**d, "scale_fn": True}
        return super().from_dict(d, scale_fn)

    @classmethod
    def _from_arguments(cls, arguments: dict[str, Any], functions: ScaleFunctions) -> Self:
        needs_function = arguments.pop("scale_fn", False)
        flag("scale_fn", needs_function)
        return cls(**arguments, scale_fn=functions.take() if needs_function else None)

    def _advice(self, steps: int, per_epoch: int) -> Iterator[Check]:
        up, down, cycle = self.step_size_up, self.cycle_length - self.step_size_up, self.cycle_length
        for name, half in [("half-cycle", up)] if up == down else [("rising half", up), ("falling half", down)]:
            yield Check(
                name, "2 to 10 epochs", length_in_words(half, per_epoch), 2 * per_epoch <= half <= 10 * per_epoch
            )
        yield Check("cycles", "at least 3, 4 are better", number_in_words(steps / cycle), steps >= 3 * cycle)
        complete, rest = divmod(steps, cycle)
        found = f"the end of cycle {complete}"
        if rest:
            first, last = (number_in_words(end / per_epoch) for end in (steps - rest, steps - rest + cycle))
            found = f"{steps_in_words(rest)} into cycle {complete + 1}, which lasts from epoch {first} to {last}"
        yield Check("end of the run", "the end of a cycle", found, rest == 0)
        yield self._advice_on_base_lr()

    def _advice_on_base_lr(self) -> Check:
        advised = "max_lr / 3 to max_lr / 4, or what a range test shows"
        if self.base_lr == self.max_lr:
            return Check("base_lr", advised, "max_lr: the rate does not cycle", False)
        if self.base_lr == 0.0:
            return Check("base_lr", advised, "0", None)
        ratio = self.max_lr / self.base_lr
        # Rates are rounded decimals: 0.3 / 0.1 is just below 3.
        return Check(
            "base_lr", advised, f"max_lr / {number_in_words(ratio)}", True if 3 - 1e-9 <= ratio <= 4 + 1e-9 else None
        )
