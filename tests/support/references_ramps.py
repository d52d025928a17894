"""Values of one-cycle, ramp and sequence as exact fractions, from the documented formulas and not from the code."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import mpmath

import references
from clr_native import CyclicSchedule, OneCycleSchedule, RampSchedule, ScheduleSequence
from clr_native.schedules import Schedule
from references import LARGEST_STEP

_MP = mpmath.mp.clone()
_MP.prec = 600


class Exact(NamedTuple):
    lr: Fraction
    momentum: Fraction | None


class Phase(NamedTuple):
    """The ends of learning rate and momentum in a phase up to the real step ``end``."""

    end: Fraction
    lr: tuple[float, float]
    momentum: tuple[float, float]


def _fraction(x: mpmath.mpf) -> Fraction:
    """Returns the fraction of a number that is not negative: mpmath keeps the sign elsewhere."""
    return Fraction(int(x.man)) * Fraction(2) ** int(x.exp)


@functools.cache
def _cos(s: Fraction) -> Fraction:
    return _fraction(1 - _MP.cospi(_MP.mpf(s.numerator) / s.denominator)) / 2


def _linear(s: Fraction) -> Fraction:
    return s


CURVES: dict[str, Callable[[Fraction], Fraction]] = {"linear": _linear, "cos": _cos}


def phases(schedule: OneCycleSchedule) -> list[Phase]:
    """Returns the table of the documentation. Its ends and rates are rounded to float64, and k / N steps of N are k."""
    torch_like = schedule.convention == "torch"
    share = (0.3 if torch_like else 0.25) if schedule.pct_start is None else schedule.pct_start
    factor = (1e4 if torch_like else 1e5) if schedule.final_div_factor is None else schedule.final_div_factor
    n, late = schedule.total_steps, 1 if torch_like else 0
    low, high = schedule.base_momentum, schedule.max_momentum
    whole = round(share * n)
    rising = whole if float(Fraction(whole, n)) == share else share * n
    initial = schedule.max_lr / schedule.div_factor
    final = (initial if torch_like else schedule.max_lr) / factor
    rise = Phase(Fraction(float(rising) - late), (initial, schedule.max_lr), (high, low))
    if not schedule.three_phase:
        return [rise, Phase(Fraction(n - late), (schedule.max_lr, final), (low, high))]
    return [
        rise,
        Phase(Fraction(2.0 * rising - 2 * late), (schedule.max_lr, initial), (low, high)),
        Phase(Fraction(n - late), (initial, final), (high, high)),
    ]


def one_cycle(schedule: OneCycleSchedule, step: int) -> Exact:
    at = Fraction(min(step, schedule.total_steps - 1))
    start = Fraction(0)
    table = phases(schedule)
    for phase in table:
        if at <= phase.end or phase is table[-1]:
            s = (at - start) / (phase.end - start) if phase.end > start else Fraction(1)
            w = CURVES[schedule.anneal_strategy](s)
            lr, momentum = (Fraction(a) + (Fraction(b) - Fraction(a)) * w for a, b in (phase.lr, phase.momentum))
            return Exact(lr, momentum if schedule.cycle_momentum else None)
        start = phase.end
    raise AssertionError


def ramp(schedule: RampSchedule, step: int) -> Exact:
    s = min(Fraction(1), Fraction(step, schedule.num_steps))
    start, end = Fraction(schedule.start_lr), Fraction(schedule.end_lr)
    if schedule.ramp == "linear":
        lr = start + (end - start) * s
    else:
        power = _MP.mpf(s.numerator) / s.denominator
        lr = start * _fraction(_MP.power(_MP.mpf(schedule.end_lr) / _MP.mpf(schedule.start_lr), power))
    return Exact(lr, None if schedule.momentum is None else Fraction(schedule.momentum))


def sequence(schedule: ScheduleSequence, step: int) -> Exact:
    last, n_last = schedule.segments[-1]
    for each, n_steps in schedule.segments:
        if n_steps is None or step < n_steps:
            return exact(each, step)
        step -= n_steps
    assert n_last is not None
    return exact(last, n_last - 1)


def cyclic(schedule: CyclicSchedule, step: int) -> Exact:
    lr, momentum = references.lr_and_momentum(schedule, step)
    return Exact(lr, momentum if schedule.cycle_momentum else None)


def exact(schedule: Schedule, step: int) -> Exact:
    """Returns the value of update number ``step`` of a schedule of any kind."""
    if isinstance(schedule, OneCycleSchedule):
        return one_cycle(schedule, step)
    if isinstance(schedule, RampSchedule):
        return ramp(schedule, step)
    if isinstance(schedule, ScheduleSequence):
        return sequence(schedule, step)
    assert isinstance(schedule, CyclicSchedule)
    return cyclic(schedule, step)


def telling_steps(schedule: Schedule) -> list[int]:
    """Returns steps from 0 to 2**63 - 2: around every join and end, in between, and far past the end."""
    if isinstance(schedule, OneCycleSchedule):
        ends = [*(int(phase.end) for phase in phases(schedule)), schedule.total_steps]
    elif isinstance(schedule, RampSchedule):
        ends = [schedule.num_steps]
    elif isinstance(schedule, ScheduleSequence):
        ends, start = [], 0
        for each, n_steps in schedule.segments:
            inside = telling_steps(each)
            ends += [start + step for step in inside if n_steps is None or step < n_steps]
            start += n_steps or 0
            ends.append(start)
    else:
        raise TypeError(schedule)
    steps = {2**53 - 1, 2**53, 2**53 + 1, LARGEST_STEP - 1, LARGEST_STEP}
    previous = 0
    for end in sorted({0, *ends}):
        steps |= {end + offset for offset in (-2, -1, 0, 1, 2)}
        steps |= {previous + (end - previous) * k // 7 for k in range(1, 7)}
        previous = end
    return sorted(step for step in steps if 0 <= step <= LARGEST_STEP)


def worst_errors(schedule: Schedule, steps: list[int]) -> tuple[float, float]:
    """Returns the largest errors of lr and momentum at these steps, in ulp. Asserts NaN where there is no momentum."""
    assert steps
    worst_lr, worst_momentum = 0.0, 0.0
    for step, lr, momentum in zip(steps, *(array.tolist() for array in schedule.values(steps)), strict=True):
        truth = exact(schedule, step)
        worst_lr = max(worst_lr, references.ulp_error(lr, truth.lr))
        if truth.momentum is None:
            assert momentum != momentum, f"momentum={momentum} at step {step} of {schedule}"
        else:
            worst_momentum = max(worst_momentum, references.ulp_error(momentum, truth.momentum))
    return worst_lr, worst_momentum


def table() -> Iterator[tuple[str, Schedule, list[int], list[int]]]:
    """Returns names, schedules, single steps and starts of ranges, for digests that every instruction set must give."""
    for convention, three, strategy, n in itertools.product(
        ("torch", "fastai"), (False, True), ("cos", "linear"), (1, 3, 400, 2**53 - 1)
    ):
        schedule = OneCycleSchedule(
            0.3, n, convention=convention, three_phase=three, anneal_strategy=strategy, pct_start=0.237
        )
        joins = [max(0, int(phase.end) - 70) for phase in phases(schedule)]
        yield f"one cycle {convention} {three} {strategy} {n}", schedule, telling_steps(schedule), [0, *joins]
    for name, n, (start, end) in itertools.product(
        ("linear", "exponential"), (1, 7, 100, 999_983, 2**53 - 1), ((1e-7, 10.0), (0.3, 1e-200), (0.1, 0.1))
    ):
        ramped = RampSchedule(start, end, n, ramp=name, momentum=0.9)
        yield f"{name} ramp {n} {start} {end}", ramped, telling_steps(ramped), [0, max(0, n - 70)]
    for gamma, cycle in itertools.product((5e-324, 0.5, 0.99994, math.nextafter(1, 0), math.nextafter(1, 2)), (3, 64)):
        powers = CyclicSchedule(0.1, 0.7, step_size_up=cycle, mode="exp_range", gamma=gamma)
        steps = [*range(200), 2**40 + 63, 2**53 + 1]
        yield f"exp_range {gamma} {cycle}", powers, steps, [0, 1, 63, 64, 65, 2**40 + 31]
    inner = ScheduleSequence([(RampSchedule(0.0, 0.3, 9), 9), (OneCycleSchedule(0.3, 70), 65)])
    joined = ScheduleSequence(
        [(inner, 80), (CyclicSchedule(0.1, 0.7, mode="exp_range", gamma=0.99, window="hann"), None)]
    )
    yield "sequence", joined, telling_steps(inner), [0, 3, 64, 79, 2**40]
