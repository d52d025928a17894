"""Schedule values as exact fractions, from the formulas of the documentation and not from the code.

A rational formula gives the exact fraction. Others are 400 bits of mpmath turned into a fraction: the error is 10**80
times smaller than the last place of a double.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np

from clr_native import CyclicSchedule, build_info, evaluate
from clr_native.schedules import Schedule

LARGEST_SIZE = 2**53 - 1
LARGEST_STEP = 2**63 - 2

WINDOWS = ("triangular", "welch", "hann")

Boundaries = tuple[float, float, float, float]  # base_lr, max_lr, base_momentum, max_momentum

_MP = mpmath.mp.clone()
_MP.prec = 400
_FAR = 4000  # powers below 2**-_FAR and above 2**_FAR are cut off there


def _fraction(x: Any) -> Fraction:
    return Fraction(int(x.man)) * Fraction(2) ** int(x.exp)


def bits(*arrays: Any) -> bytes:
    return np.array(arrays, dtype=np.float64).tobytes()


def cyclic(boundaries: Boundaries, up: int, down: int | None = None, **arguments: Any) -> CyclicSchedule:
    names = ("base_lr", "max_lr", "base_momentum", "max_momentum")
    limits: dict[str, Any] = dict(zip(names, boundaries, strict=True))
    return CyclicSchedule(**limits, step_size_up=up, step_size_down=down, **arguments)


@functools.cache
def window(name: str, s: Fraction) -> Fraction:
    """Returns the curve of one cycle at phase ``s``, 0 at bottoms and 1 at the peak."""
    if name == "triangular":
        return s
    if name == "welch":
        return s * (2 - s)
    if name == "hann":
        return _fraction(_MP.sinpi(_MP.mpf(s.numerator) / (2 * s.denominator)) ** 2)
    raise ValueError(name)


@functools.cache
def power(base: float, n: int) -> Fraction:
    """Returns ``base**n``, limited to 2**-4000 and 2**4000."""
    if abs(n * _MP.log(_MP.mpf(base), 2)) > _FAR:
        return Fraction(2) ** (_FAR if base > 1 else -_FAR)
    return _fraction(_MP.power(_MP.mpf(base), n))


def position(schedule: CyclicSchedule, step: int) -> tuple[int, Fraction]:
    """Returns the cycle, from 0, and the phase."""
    up = schedule.step_size_up
    down = up if schedule.step_size_down is None else schedule.step_size_down
    cycle, p = divmod(step, up + down)
    return cycle, Fraction(p, up) if p <= up else Fraction(up + down - p, down)


def scale(schedule: CyclicSchedule, step: int) -> Fraction:
    """Returns the factor by which the mode multiplies the amplitude."""
    cycle, _ = position(schedule, step)
    if schedule.scale_fn is not None:
        return Fraction(schedule.scale_fn(cycle + 1 if schedule.scale_mode == "cycle" else step))
    if schedule.mode == "triangular":
        return Fraction(1)
    if schedule.mode == "triangular2":
        return power(0.5, cycle)
    if schedule.mode == "exp_range":
        return power(schedule.gamma, step)
    if schedule.mode == "exp_cycle":
        return power(schedule.gamma, cycle)
    if schedule.mode == "linear_range":
        assert schedule.decay_steps is not None
        return max(Fraction(0), 1 - Fraction(step, schedule.decay_steps))
    raise ValueError(schedule.mode)


def swing(schedule: CyclicSchedule, step: int) -> Fraction:
    """Returns the share of the amplitude at ``step``."""
    return window(schedule.window, position(schedule, step)[1]) * scale(schedule, step)


def lr_and_momentum(schedule: CyclicSchedule, step: int) -> tuple[Fraction, Fraction]:
    """Returns the value of update number ``step``, with momentum as if ``cycle_momentum`` were True."""
    on = swing(schedule, step)
    low, high = Fraction(schedule.base_lr), Fraction(schedule.max_lr)
    lr = (low * scale(schedule, step) if schedule.decay_base else low) + (high - low) * on
    low, high = Fraction(schedule.base_momentum), Fraction(schedule.max_momentum)
    return lr, high - (high - low) * on


def is_usable(lr: Fraction, momentum: Fraction) -> bool:
    """True if an optimizer can use these values after they are rounded to doubles."""
    if not -1 < lr < 2**1024 - 2**970 or not -1 < momentum < 2:
        return False
    return float(lr) >= 0 and 0 <= float(momentum) <= 1


def ulp_error(value: float, truth: Fraction) -> float:
    """Returns ``|value - truth|`` in units of the last place of the largest double that is not above ``truth``."""
    if not math.isfinite(value):
        return math.inf
    below = float(truth)
    if below > truth:
        below = math.nextafter(below, -math.inf)
    return float(abs(Fraction(value) - truth) / Fraction(math.ulp(below)))


def bound(schedule: CyclicSchedule) -> float:
    """Returns the largest error that the design allows, in ulp."""
    if schedule.scale_fn is None and schedule.mode.startswith("exp"):
        return 2.0
    return 0.51 if schedule.window == "triangular" else 1.0


def telling_steps(schedule: CyclicSchedule, random: np.random.Generator) -> list[int]:
    """Returns steps from 0 to 2**63 - 2: around bottoms and peaks of early, late and last cycles, and in between."""
    length, up = schedule.cycle_length, schedule.step_size_up
    last = LARGEST_STEP // length
    cycles = {0, 1, 2, 52, 53, 1024, 1075, int(random.integers(last, endpoint=True)), last}
    places = {0, 1, up - 1, up, up + 1, length - 1, *random.integers(length, size=3).tolist()}
    steps = {cycle * length + place for cycle, place in itertools.product(cycles, places)}
    steps |= {length - 1, length, 2**53 - 1, 2**53 + 1, 2**62 + 1, LARGEST_STEP - 1, LARGEST_STEP}
    if schedule.decay_steps is not None:
        steps |= {schedule.decay_steps + offset for offset in (-1, 0, 1)}
    return sorted(step for step in steps if step <= LARGEST_STEP)


# The sizes are odd, unequal, tiny and the largest.
SIZES = (
    (1, 1),
    (1, 2),
    (3, 7),
    (7, 3),
    (333, 667),
    (2000, 2000),
    (999_983, 1),
    (1, LARGEST_SIZE),
    (LARGEST_SIZE, 1),
    (LARGEST_SIZE, LARGEST_SIZE),
    (LARGEST_SIZE, LARGEST_SIZE - 2),
    (2**52 + 1, 3**33),
)

MODES: dict[str, dict[str, Any]] = {
    "triangular": {},
    "triangular2": {"mode": "triangular2"},
    "triangular2, base": {"mode": "triangular2", "decay_base": True},
    "exp_range": {"mode": "exp_range", "gamma": 0.99994},
    "exp_range, slow": {"mode": "exp_range", "gamma": 1 - 2**-53},
    "exp_range, steep": {"mode": "exp_range", "gamma": 1e-5},
    "exp_range, rising": {"mode": "exp_range", "gamma": 1 + 2**-52},
    "exp_range, base": {"mode": "exp_range", "gamma": 0.9, "decay_base": True},
    "exp_cycle": {"mode": "exp_cycle", "gamma": 0.7},
    "exp_cycle, smallest": {"mode": "exp_cycle", "gamma": 5e-324},
    "linear_range": {"mode": "linear_range", "decay_steps": 1_000_003},
    "linear_range, longest": {"mode": "linear_range", "decay_steps": LARGEST_SIZE},
    "linear_range, base": {"mode": "linear_range", "decay_steps": 3, "decay_base": True},
}


def _table() -> Iterator[tuple[str, CyclicSchedule]]:
    for (name, mode), curve, (up, down) in itertools.product(MODES.items(), ("triangular", "welch", "hann"), SIZES):
        if "rising" not in name:  # a rising amplitude leaves the boundaries, and raises
            yield (
                f"{curve} {name} {up}/{down}",
                CyclicSchedule(
                    0.001, 0.7, step_size_up=up, step_size_down=down, window=curve, base_momentum=0.1, **mode
                ),
            )


def _digest(arrays: Iterable[np.ndarray[Any, Any]]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def print_table(also: Iterable[tuple[str, Schedule, list[int], list[int]]] = ()) -> None:
    """Prints the instruction set in use and the digests of tables of values. Tests run it in a separate process."""
    random = np.random.default_rng(1506)
    digests = {}
    for name, schedule in _table():
        digests[name + ", steps"] = _digest(evaluate([schedule], telling_steps(schedule, random)))
        for first in (0, 2**40 + 3):
            digests[f"{name}, from {first}"] = _digest(schedule.values(range(first, first + 517)))
    for name, each, steps, firsts in also:
        digests[name + ", steps"] = _digest(evaluate([each], steps))
        for first in firsts:
            digests[f"{name}, from {first}"] = _digest(each.values(range(first, first + 200)))
    print(json.dumps({"isa": build_info()["isa"]["selected"], "digests": digests}))
