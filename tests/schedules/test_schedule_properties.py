"""What holds for every schedule, by hypothesis: boundaries, symmetry, order, the same bits however one asks."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import references
from clr_native import CyclicSchedule, evaluate
from references import LARGEST_SIZE, LARGEST_STEP, WINDOWS, bits, bound, cyclic

SEEDED = settings(max_examples=150, derandomize=True, database=None, deadline=None)

sizes = st.one_of(st.integers(1, 50), st.integers(1, LARGEST_SIZE))
numbers = st.one_of(st.integers(0, 5000), st.integers(0, LARGEST_STEP))


def ordered(most: float) -> st.SearchStrategy[tuple[float, float]]:
    boundary = st.just(0.0) | st.floats(1e-270, most)
    return st.tuples(boundary, boundary).map(lambda pair: (min(pair), max(pair)))


@st.composite
def schedules(draw: st.DrawFn, /, per_cycle: bool = False, **fixed: Any) -> CyclicSchedule:
    """A schedule whose amplitude never grows, and with ``per_cycle`` changes between cycles only."""
    modes = ["triangular", "triangular2", "exp_cycle"] + ["exp_range", "linear_range"] * (not per_cycle)
    constant = draw(st.none() | st.floats(0, 1))
    arguments = {
        "step_size_up": draw(sizes),
        "step_size_down": draw(st.none() | sizes),
        "mode": draw(st.sampled_from(modes)),
        "gamma": draw(st.floats(0, 1, exclude_min=True) | st.floats(0.999, 1)),
        "decay_steps": draw(sizes),
        "decay_base": draw(st.booleans()),
        "window": draw(st.sampled_from(WINDOWS)),
        "scale_fn": None if constant is None else lambda argument: constant,
        **dict(zip(("base_lr", "max_lr"), draw(ordered(1e3)), strict=True)),
        **dict(zip(("base_momentum", "max_momentum"), draw(ordered(1.0)), strict=True)),
    }
    return CyclicSchedule(**{**arguments, **fixed})


@SEEDED
@given(schedules(), st.lists(numbers, min_size=1, max_size=20))
def test_values_stay_within_the_boundaries(schedule: CyclicSchedule, steps: list[int]) -> None:
    lr, momentum = schedule.values(steps)
    lowest = 0.0 if schedule.decay_base else schedule.base_lr
    assert lowest <= lr.min()
    assert lr.max() <= schedule.max_lr
    assert schedule.base_momentum <= momentum.min()
    assert momentum.max() <= schedule.max_momentum


@SEEDED
@given(schedules(per_cycle=True, step_size_down=None), numbers)
def test_equal_halves_are_symmetric(schedule: CyclicSchedule, step: int) -> None:
    cycle, place = divmod(step, schedule.cycle_length)
    mirrored = cycle * schedule.cycle_length + (schedule.cycle_length - place if place else 0)
    if mirrored <= LARGEST_STEP:
        assert bits(schedule(step)) == bits(schedule(mirrored))


@SEEDED
@given(schedules(decay_base=False), numbers, ordered(1.0))
def test_momentum_mirrors_the_learning_rate(schedule: CyclicSchedule, step: int, limits: tuple[float, float]) -> None:
    low, high = limits
    schedule = dataclasses.replace(schedule, base_lr=low, max_lr=high, base_momentum=low, max_momentum=high)
    lr, momentum = schedule(step)
    assert momentum is not None
    off = abs(Fraction(lr) + Fraction(momentum) - Fraction(low) - Fraction(high))
    assert off <= Fraction(bound(schedule)) * (Fraction(math.ulp(lr)) + Fraction(math.ulp(momentum)))


@SEEDED
@given(sizes, numbers, ordered(1.0))
def test_the_triangular_window_mirrors_bit_for_bit(up: int, step: int, limits: tuple[float, float]) -> None:
    schedule, place = cyclic((*limits, *limits), up), step % (up + 1)
    assert schedule(place).lr == schedule(up - place).momentum


@SEEDED
@given(schedules(per_cycle=True), st.integers(0, 10**6), st.integers(1, 1000))
def test_only_the_phase_counts_and_not_the_unit(schedule: CyclicSchedule, step: int, unit: int) -> None:
    up, down = schedule.step_size_up % 1000 + 1, schedule.cycle_length % 1000 + 1
    coarse = dataclasses.replace(schedule, step_size_up=up, step_size_down=down)
    fine = dataclasses.replace(schedule, step_size_up=up * unit, step_size_down=down * unit)
    assert bits(coarse(step)) == bits(fine(step * unit))


@SEEDED
@given(schedules(per_cycle=True), numbers, st.integers(2, 300))
def test_rising_halves_rise_and_falling_halves_fall(schedule: CyclicSchedule, step: int, count: int) -> None:
    first = min(step, LARGEST_STEP - count)
    positions = [references.position(schedule, n) for n in range(first, first + count)]
    values = [array.tolist() for array in schedule.values(range(first, first + count))]
    for (near, far), lr, momentum in zip(*map(itertools.pairwise, (positions, *values)), strict=True):
        if near[0] == far[0]:
            sign = 1 if near[1] <= far[1] else -1
            assert sign * lr[0] <= sign * lr[1]
            assert sign * momentum[0] >= sign * momentum[1]


@SEEDED
@given(schedules(), numbers, st.integers(1, 40), st.integers(1, 9))
def test_every_way_to_ask_gives_the_same_bits(schedule: CyclicSchedule, step: int, count: int, stride: int) -> None:
    first = min(step, LARGEST_STEP - count * stride)
    last = first + count * stride
    for steps in (range(first, first + count), range(first, last, stride), range(last, first, -stride)):
        expected = bits(*zip(*map(schedule, steps), strict=True))
        assert bits(*schedule.values(steps)) == expected
        assert bits(*schedule.values(np.array(steps))) == expected
        assert bits(*schedule.values(list(steps))) == expected
        lr, momentum = evaluate([schedule, schedule], steps)
        assert bits(lr[0], momentum[0]) == bits(lr[1], momentum[1]) == expected
    assert bits(*schedule.values(count)) == bits(*schedule.values(range(count)))
