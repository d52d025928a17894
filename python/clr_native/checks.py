"""Checks of arguments. Each check returns the value to use, or raises an error that names the argument."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

from torch import Tensor

from clr_native.spelling import nearest

LARGEST_SIZE = 2**53 - 1
LARGEST_STEP = 2**63 - 2

# Between these no product on the way to a value leaves the range in which double-double arithmetic is exact.
SMALLEST_BOUNDARY, LARGEST_LR = 1e-270, 1e270


def number(name: str, value: object) -> float:
    """Returns the value as a float. A tensor of one element is taken as well, as by torch's schedulers."""
    plain = _one_element(value) if isinstance(value, Tensor) else value
    if isinstance(plain, bool) or not isinstance(plain, numbers.Real):
        raise TypeError(f"{name}={value!r} must be a number")
    try:
        return float(plain)
    except OverflowError:
        raise ValueError(f"{name}={value!r} must be within the range of a float") from None


def _one_element(tensor: Tensor) -> object:
    try:
        return tensor.item()
    except RuntimeError:
        return None  # The tensor has several elements, none, or no memory.


def size(name: str, value: object, of: str = "steps") -> int:
    """Returns a count, 1 to 2**53 - 1, given as an int or a whole float."""
    count = number(name, value)
    if not math.isfinite(count) or count != int(count) or not 1 <= count <= LARGEST_SIZE:
        raise ValueError(f"{name}={value!r} must be a whole number of {of} from 1 to 2**53 - 1")
    return int(count)


def checked_step(step: int) -> int:
    """Returns the number of an update as an int. Raises TypeError or ValueError for anything else."""
    if isinstance(step, bool) or not isinstance(step, numbers.Integral):
        raise TypeError(f"step={step!r} must be an int")
    if not 0 <= step <= LARGEST_STEP:
        raise ValueError(f"step={step!r} must be from 0 to 2**63 - 2")
    return int(step)


def choice(name: str, value: object, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, choices))}{nearest(value, choices)}")


def flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r} must be True or False")


def boundary(name: str, value: float, most: float) -> None:
    if value != 0.0 and not SMALLEST_BOUNDARY <= value <= most:
        raise ValueError(f"{name}={value!r} must be 0 or from {SMALLEST_BOUNDARY} to {most}")


def boundaries(name: str, low: float, high: float, most: float) -> None:
    """Returns the pair ``base_<name>`` and ``max_<name>``."""
    boundary(f"base_{name}", low, most)
    boundary(f"max_{name}", high, most)
    if low > high:
        raise ValueError(f"base_{name}={low!r} must not be above max_{name}={high!r}")


def group_label(index: int) -> str:
    """Returns the beginning of an error about a parameter group."""
    return f"parameter group {index}: "
