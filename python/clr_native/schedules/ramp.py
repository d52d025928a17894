"""One way from a rate to another: warm-up, cool-down, and what a range test needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from clr_native import _core
from clr_native.checks import LARGEST_LR, boundary, choice, number, size
from clr_native.schedules.advice import Check, end_of_run
from clr_native.schedules.base import NEVER, CycleSpan, Piece, Schedule

RAMPS = ("linear", "exponential")


@dataclasses.dataclass(frozen=True, repr=False)
class RampSchedule(Schedule):
    """From one learning rate to another, then staying there.

    With ``s = min(1, step / num_steps)``, in steps (optimizer updates, not epochs) from 0::

        lr = start_lr + (end_lr - start_lr) * s          ramp="linear"
             start_lr * (end_lr / start_lr)**s           ramp="exponential"

    ``start_lr`` is met exactly at step 0 and ``end_lr`` at step ``num_steps`` and ever after; a range test of n points
    that includes both is ``num_steps = n - 1``. Linear values are within 1 ulp, exponential ones within 2.

    Args:
        start_lr, end_lr: the two rates, either may be the larger; each 0 or from 1e-270 to 1e270, the exponential
            ramp's above 0.
        num_steps: steps from the one to the other, an int or whole float from 1 to 2**53 - 1.
        ramp: the curve between them.
        momentum: a constant momentum, 0 or from 1e-270 to 1; None: the schedule has no momentum and leaves it alone.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: an argument is out of its range or unknown.

    >>> RampSchedule(0.0, 0.5, 5).values(7)[0].tolist()
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5]
    >>> RampSchedule(1e-4, 1.0, 4, ramp="exponential", momentum=0.9)(2)
    ScheduleValue(lr=0.01, momentum=0.9)

    Source: the linear ramp is the range test of L. N. Smith, "Cyclical Learning Rates for Training Neural Networks",
    arXiv:1506.01186, section 3.3.
    """

    _kind: ClassVar[str] = "ramp"
    _sizes: ClassVar[tuple[str, ...]] = ("num_steps",)

    start_lr: float
    end_lr: float
    num_steps: int
    _: dataclasses.KW_ONLY
    ramp: str = "linear"
    momentum: float | None = None

    def __post_init__(self) -> None:
        choice("ramp", self.ramp, RAMPS)
        for name in ("start_lr", "end_lr"):
            self._put(name, number(name, getattr(self, name)))
            boundary(name, getattr(self, name), LARGEST_LR)
            if self.ramp == "exponential" and getattr(self, name) == 0.0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be above 0 with ramp='exponential'")
        self._put("num_steps", size("num_steps", self.num_steps))
        if self.momentum is not None:
            self._put("momentum", number("momentum", self.momentum))
            boundary("momentum", self.momentum, 1.0)

    def _cycle_spans(self) -> list[CycleSpan]:
        return [CycleSpan(0)]

    def _pieces(self) -> list[Piece]:
        rates = (self.start_lr, self.end_lr)
        curve = "exponential" if self.ramp == "exponential" else "rise" if self.start_lr <= self.end_lr else "fall"
        base_lr, max_lr = rates if curve != "fall" else reversed(rates)
        policy = _core.Policy.ramp(
            curve=curve,
            base_lr=base_lr,
            max_lr=max_lr,
            lead=(0.0, 0.0),
            length=(float(self.num_steps), 0.0),
            base_momentum=self.momentum,
            max_momentum=self.momentum,
            window="triangular",
        )
        return [Piece(0, NEVER, policy, self.momentum is not None)]

    def _advice(self, steps: int, per_epoch: int) -> Iterator[Check]:
        reached = self.num_steps + (steps > self.num_steps)  # includes the update with end_lr if the run is long enough
        yield end_of_run("the ramp", steps, reached, per_epoch, f"the rate stays at {self.end_lr:g}")
        rising = self.start_lr < self.end_lr
        found = f"{self.ramp}, {'rising' if rising else 'not rising'}"
        yield Check("range test", "linear, rising", found, True if rising and self.ramp == "linear" else None)
