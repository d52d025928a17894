"""One cycle and an annealing: super-convergence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import ClassVar, NamedTuple

from clr_native import _core
from clr_native.checks import LARGEST_LR, boundaries, boundary, choice, flag, number, size
from clr_native.schedules.advice import Check, end_of_run, number_in_words
from clr_native.schedules.base import CycleSpan, Piece, Schedule
from clr_native.schedules.lengths import rising_steps, run_length, share_rising

CONVENTIONS = ("torch", "fastai")
ANNEAL_STRATEGIES = ("cos", "linear")
_PCT_START = {"torch": 0.3, "fastai": 0.25}
_FINAL_DIV_FACTOR = {"torch": 1e4, "fastai": 1e5}


class _Phase(NamedTuple):
    """The course of learning rate and momentum until the real step ``end``."""

    end: float
    curve: str
    base_lr: float
    max_lr: float
    base_momentum: float


@dataclasses.dataclass(frozen=True, repr=False)
class OneCycleSchedule(Schedule):
    """Up to ``max_lr`` and down to almost nothing, once, with momentum the other way (Smith and Topin, 2017).

    With ``N = total_steps`` and ``initial_lr = max_lr / div_factor``, in steps (optimizer updates, not epochs) from 0::

        phase  convention="torch" ends at   "fastai"           lr                        momentum
        1      pct_start * N - 1            pct_start * N      initial_lr to max_lr      max to base
        2      N - 1                        N                  max_lr to final_lr        base to max

        with three_phase:
        2      2 * pct_start * N - 2        2 * pct_start * N  max_lr to initial_lr      base to max
        3      N - 1                        N                  initial_lr to final_lr    max

        final_lr = initial_lr / final_div_factor               convention="torch", as torch's OneCycleLR
                   max_lr / final_div_factor                   convention="fastai", as fit_one_cycle

        s = (step - start) / (end - start)                     within a phase, which starts where the one before ended
        w = s                                                  anneal_strategy="linear"
            (1 - cos(pi * s)) / 2                              anneal_strategy="cos"
        value = from + (to - from) * w

    The rates and the ends of phases are real numbers, rounded to float64; ``pct_start=k / N`` means k steps exactly. A
    phase without length is over: ``s = 1``. After step N - 1 the last value is held, and ``FusedCyclicSGD`` and
    ``CyclicLR`` warn once that the schedule is over. Values are float64 within 1 ulp.

    Args:
        max_lr: the peak, 0 or from 1e-270 to 1e270.
        total_steps: N, an int or whole float from 1 to 2**53 - 1.
        epochs, steps_per_epoch: both or neither: N = epochs * steps_per_epoch, each an int or whole float from 1.
            ``total_steps`` may then be left out; one that is given must be the same.
        convention: whose phases, see above.
        pct_start: the share of the rising phase, 0 to 1; None: 0.3 (torch) or 0.25 (fastai).
        anneal_strategy: the curve of the phases.
        div_factor: what ``max_lr`` is divided by at the start, at least 1.
        final_div_factor: what the rate is divided by at the end, see above; None: 1e4 (torch) or 1e5 (fastai). The
            final rate must not be above that from which it falls.
        three_phase: come down to ``initial_lr`` as fast as up, then on to ``final_lr``, as the paper has it.
        cycle_momentum: let momentum swing the other way. False: the schedule has no momentum.
        base_momentum, max_momentum: ends of momentum, ``base_momentum <= max_momentum``, each 0 or from 1e-270 to 1.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: an argument is out of its range or unknown, or the lengths contradict each other.

    >>> OneCycleSchedule(0.1, epochs=10, steps_per_epoch=500)
    OneCycleSchedule(0.1, 5000)
    >>> schedule = OneCycleSchedule(1.0, 11, pct_start=6 / 11, anneal_strategy="linear", div_factor=10.0)
    >>> [round(schedule(step).lr, 5) for step in (0, 5, 10, 11)]
    [0.1, 1.0, 1e-05, 1e-05]
    >>> [schedule(step).momentum for step in (0, 5, 10)]
    [0.95, 0.85, 0.95]

    Sources: L. N. Smith and N. Topin, "Super-Convergence", arXiv:1708.07120; the conventions are those of torch 2.13
    and fastai 2.8.
    """

    _kind: ClassVar[str] = "one_cycle"
    _sizes: ClassVar[tuple[str, ...]] = ("total_steps",)
    _init_only: ClassVar[tuple[str, ...]] = ("epochs", "steps_per_epoch")

    max_lr: float
    total_steps: int = None  # type: ignore[assignment]  # __post_init__ replaces None by a length, or raises
    _: dataclasses.KW_ONLY
    convention: str = "torch"
    pct_start: float | None = None
    anneal_strategy: str = "cos"
    div_factor: float = 25.0
    final_div_factor: float | None = None
    three_phase: bool = False
    cycle_momentum: bool = True
    base_momentum: float = 0.85
    max_momentum: float = 0.95
    epochs: dataclasses.InitVar[int | None] = None
    steps_per_epoch: dataclasses.InitVar[int | None] = None

    def __post_init__(self, epochs: int | None, steps_per_epoch: int | None) -> None:
        choice("convention", self.convention, CONVENTIONS)
        choice("anneal_strategy", self.anneal_strategy, ANNEAL_STRATEGIES)
        flag("three_phase", self.three_phase)
        flag("cycle_momentum", self.cycle_momentum)
        for name in ("max_lr", "div_factor", "base_momentum", "max_momentum"):
            self._put(name, number(name, getattr(self, name)))
        for name in ("pct_start", "final_div_factor"):
            if getattr(self, name) is not None:
                self._put(name, number(name, getattr(self, name)))
        self._put("total_steps", run_length(self.total_steps, epochs, steps_per_epoch))
        boundary("max_lr", self.max_lr, LARGEST_LR)
        boundaries("momentum", self.base_momentum, self.max_momentum, 1.0)
        if self.pct_start is not None and not 0.0 <= self.pct_start <= 1.0:
            raise ValueError(f"pct_start={self.pct_start!r} must be from 0 to 1")
        if not (math.isfinite(self.div_factor) and self.div_factor >= 1.0):
            raise ValueError(f"div_factor={self.div_factor!r} must be finite and at least 1")
        boundary("max_lr / div_factor", self.initial_lr, LARGEST_LR)
        factor = self._final_div_factor
        highest = self.initial_lr if self.three_phase else self.max_lr
        if not (math.isfinite(factor) and factor > 0.0) or self.final_lr > highest:
            raise ValueError(f"final_div_factor={factor!r} must be finite, above 0, and leave final_lr <= {highest!r}")
        boundary("final_lr", self.final_lr, LARGEST_LR)

    @property
    def initial_lr(self) -> float:
        """The learning rate at step 0."""
        return self.max_lr / self.div_factor

    @property
    def final_lr(self) -> float:
        """The learning rate at which the last phase ends."""
        return (self.initial_lr if self.convention == "torch" else self.max_lr) / self._final_div_factor

    @property
    def _final_div_factor(self) -> float:
        return _FINAL_DIV_FACTOR[self.convention] if self.final_div_factor is None else self.final_div_factor

    @property
    def _rising(self) -> float:
        """The number of steps of the rising phase, a real number."""
        return rising_steps(self._share, self.total_steps)

    @property
    def _share(self) -> float:
        return _PCT_START[self.convention] if self.pct_start is None else self.pct_start

    def extended(self, total_steps: int) -> OneCycleSchedule:
        """The same rise, with the peak at the same step, and what comes after it stretched to a later end.

        A rise of a whole number of steps stays the same exactly, any other to the last place of ``pct_start``. Raises
        ValueError if ``total_steps`` is less than before.

        >>> OneCycleSchedule(0.1, 100).extended(200)
        OneCycleSchedule(0.1, 200, pct_start=0.15)
        """
        total_steps = size("total_steps", total_steps)
        if total_steps < self.total_steps:
            raise ValueError(f"total_steps={total_steps!r} must be at least the present {self.total_steps}")
        share = share_rising(self._rising, total_steps)
        return dataclasses.replace(self, total_steps=total_steps, pct_start=share)

    def _cycle_spans(self) -> list[CycleSpan]:
        return [CycleSpan(0, self.total_steps)]

    def _end(self) -> int:
        return self.total_steps

    def _phases(self) -> list[_Phase]:
        late = 1.0 if self.convention == "torch" else 0.0
        up = _Phase(self._rising - late, "rise", self.initial_lr, self.max_lr, self.base_momentum)
        end = self.total_steps - late
        if not self.three_phase:
            return [up, _Phase(end, "fall", self.final_lr, self.max_lr, self.base_momentum)]
        down = _Phase(2.0 * self._rising - 2.0 * late, "fall", self.initial_lr, self.max_lr, self.base_momentum)
        return [up, down, _Phase(end, "fall", self.final_lr, self.initial_lr, self.max_momentum)]

    def _pieces(self) -> list[Piece]:
        pieces: list[Piece] = []
        first, start, last = 0, Fraction(0), self.total_steps - 1
        phases = self._phases()
        for phase in phases:
            # A phase holds the steps up to its end that no earlier phase holds. The last phase holds all that are left.
            stop = last if phase is phases[-1] else min(math.floor(phase.end), last)
            end = Fraction(phase.end)
            if stop >= first:
                over = end <= start
                lead, length = (Fraction(1), Fraction(1)) if over else (first - start, end - start)
                pieces.append(Piece(first, stop - first, self._ramp(phase, lead, length), self.cycle_momentum))
                first = stop + 1
            start = end
        return pieces

    def _ramp(self, phase: _Phase, lead: Fraction, length: Fraction) -> _core.Policy:
        return _core.Policy.ramp(
            curve=phase.curve,
            base_lr=phase.base_lr,
            max_lr=phase.max_lr,
            lead=_double_double(lead),
            length=_double_double(length),
            base_momentum=phase.base_momentum if self.cycle_momentum else None,
            max_momentum=self.max_momentum if self.cycle_momentum else None,
            window="hann" if self.anneal_strategy == "cos" else "triangular",
        )

    def _advice(self, steps: int, per_epoch: int) -> Iterator[Check]:
        total = self.total_steps
        yield end_of_run("the schedule", steps, total, per_epoch, f"the rate stays at {self.final_lr:g}")
        fall = self.initial_lr / self.final_lr if self.final_lr else math.inf
        found = f"{self.final_lr:g}, that is initial_lr / {number_in_words(fall)}"
        yield Check("final_lr", "orders of magnitude below initial_lr", found, fall >= 100)
        momentum = "it stays" if not self.cycle_momentum else f"{self.max_momentum:g} to {self.base_momentum:g}"
        yield Check("momentum", "down while the rate goes up, 0.95 to 0.85", momentum, self.cycle_momentum)


def _double_double(x: Fraction) -> tuple[float, float]:
    high = float(x)
    return high, float(x - Fraction(high))
