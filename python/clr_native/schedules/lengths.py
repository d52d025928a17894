"""The length of one cycle, and the share of it that rises."""

from __future__ import annotations

import math
from collections.abc import Callable

from clr_native.checks import size


def run_length(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    """Returns the steps of a run, given by ``total_steps``, by the epochs, or by both."""
    if epochs is None and steps_per_epoch is None:
        if total_steps is None:
            raise TypeError("total_steps=None must be given, or epochs and steps_per_epoch")
        return size("total_steps", total_steps)
    if epochs is None or steps_per_epoch is None:
        missing, given = ("epochs", "steps_per_epoch") if epochs is None else ("steps_per_epoch", "epochs")
        raise ValueError(f"{missing}=None must be given with {given}={steps_per_epoch if epochs is None else epochs!r}")
    epochs, steps_per_epoch = size("epochs", epochs, "epochs"), size("steps_per_epoch", steps_per_epoch)
    length = size("total_steps", epochs * steps_per_epoch)
    if total_steps is not None and size("total_steps", total_steps) != length:
        raise ValueError(
            f"total_steps={total_steps!r} must be epochs * steps_per_epoch, {epochs} * {steps_per_epoch} = {length}, "
            "where these are given: leave one of them out"
        )
    return length


def rising_steps(share: float, total_steps: int) -> float:
    """Returns ``share`` of the steps, a real number. For ``share = k / total_steps`` it is k exactly."""
    steps = share * total_steps
    whole = float(round(steps))
    return whole if whole / total_steps == share else steps


def share_rising(steps: float, total_steps: int) -> float:
    """Returns the share that is ``steps`` steps, exactly if there is such a share."""
    return solution(lambda share: rising_steps(share, total_steps), steps, near=steps / total_steps)


def solution(function: Callable[[float], float], value: float, near: float) -> float:
    """Returns the float for which a function is closest to a value; of several, the one with the shortest repr.

    It must be within two places of ``near``.
    """
    ways = (-math.inf, near, math.inf)
    beside = {math.nextafter(math.nextafter(near, first), second) for first in ways for second in ways}
    return min(beside, key=lambda x: (abs(function(x) - value), len(repr(x)), x))
