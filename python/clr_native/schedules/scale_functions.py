"""A user's functions that scale the amplitude of a schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

ScaleFn: TypeAlias = Callable[[int], float]


class ScaleFunctions:
    """The functions that ``from_dict`` was given: one for all, or a sequence to be taken in order."""

    def __init__(self, given: ScaleFn | Sequence[ScaleFn] | None) -> None:
        if given is not None and not callable(given) and (isinstance(given, str) or not isinstance(given, Sequence)):
            raise TypeError(f"scale_fn={given!r} must be a function or a list of functions")
        self._same = given if callable(given) else None
        self._left = [] if given is None else [given] if callable(given) else list(given)

    def take(self) -> ScaleFn:
        if self._same is not None:
            self._left.clear()
            return self._same
        if not self._left:
            raise ValueError("scale_fn=None: this schedule was saved without its scale_fn, pass the function again")
        return self._left.pop(0)

    def check_all_taken(self) -> None:
        if self._left:
            raise ValueError(f"scale_fn={self._left!r} is left over: this schedule was saved with fewer functions")


def called(scale_fn: ScaleFn, argument: int) -> float:
    """Returns the result of a scale function. Raises TypeError if the result is no number."""
    scale = scale_fn(argument)
    try:
        if not isinstance(scale, str):
            return float(scale)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"scale_fn({argument})={scale!r} must be a number")
