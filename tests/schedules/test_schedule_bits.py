"""One step, a range, an array, many schedules at once: the same bits, for every kind and on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import references_ramps
from clr_native import CyclicSchedule, OneCycleSchedule, RampSchedule, ScheduleSequence, evaluate
from clr_native.schedules import Schedule
from references import LARGEST_STEP, bits, is_usable, lr_and_momentum, ulp_error

TABLE = list(references_ramps.table())


def one_by_one(schedule: Schedule, steps: list[int]) -> bytes:
    got = [schedule(step) for step in steps]
    return bits([each.lr for each in got], [np.nan if each.momentum is None else each.momentum for each in got])


@pytest.mark.parametrize(("name", "schedule", "steps", "firsts"), TABLE, ids=[name for name, *_ in TABLE])
def test_however_it_is_asked_for(name: str, schedule: Schedule, steps: list[int], firsts: list[int]) -> None:
    assert bits(*schedule.values(steps)) == one_by_one(schedule, steps)
    for first in firsts:
        here = range(first, first + 150)
        assert bits(*schedule.values(here)) == bits(*schedule.values(list(here))) == one_by_one(schedule, list(here))
        for start, stop in [(first + 1, first + 2), (first + 13, first + 77), (first + 64, first + 150)]:
            part = slice(start - first, stop - first)
            whole = schedule.values(here)
            assert bits(*schedule.values(range(start, stop))) == bits(*(array[part] for array in whole))


# --- the power table of exp_range -----------------------------------------------------------------------------

BLOCK = 64
GAMMAS = (5e-324, 1e-5, 0.5, 0.9, 0.99994, 1 - 2**-53, 1 + 2**-52, 1.0001)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("mode", ["exp_range", "exp_cycle"])
@pytest.mark.parametrize("window", ["triangular", "hann"])
def test_powers_around_the_borders_of_blocks_are_within_their_bound_of_the_truth(
    window: str, mode: str, gamma: float
) -> None:
    schedule = CyclicSchedule(
        0.1, 0.7, step_size_up=1 if mode == "exp_cycle" else 29, step_size_down=1, mode=mode, gamma=gamma, window=window
    )
    checked = 0
    for border in (2 * BLOCK, 17 * BLOCK, 2**20, 2**40, 2**53, 2**61, LARGEST_STEP - BLOCK):
        steps = [border + offset for offset in (-BLOCK - 1, -2, -1, 0, 1, 2, 62, 63)]
        truths = [lr_and_momentum(schedule, step) for step in steps]
        usable = [i for i, truth in enumerate(truths) if is_usable(*truth)]
        if len(usable) < len(steps):
            assert gamma > 1
            continue
        lr, momentum = schedule.values(steps)
        for i in usable:
            assert ulp_error(lr[i], truths[i][0]) <= 2
            assert ulp_error(momentum[i], truths[i][1]) <= 2
        checked += 1
        first = steps[0]
        assert bits(*schedule.values(range(first, border + 64))) == one_by_one(
            schedule, list(range(first, border + 64))
        )
    assert checked >= (2 if gamma > 1 else 7)


# --- many at once ---------------------------------------------------------------------------------------------

MIXED: list[Schedule] = [
    OneCycleSchedule(0.3, 9000),
    RampSchedule(1e-7, 10.0, 7000, ramp="exponential"),
    CyclicSchedule(0.1, 0.7, step_size_up=333, window="hann", mode="exp_range", gamma=0.999),
    ScheduleSequence(
        [
            (RampSchedule(0.0, 0.3, 100, momentum=0.5), 64),
            (CyclicSchedule(0.1, 0.7, step_size_up=3, scale_fn=lambda cycle: 1 / cycle), 4001),
            (OneCycleSchedule(0.3, 5000, convention="fastai", three_phase=True, cycle_momentum=False), None),
        ]
    ),
    CyclicSchedule(0.1, 0.7, step_size_up=7, cycle_momentum=False),
    ScheduleSequence([(RampSchedule(0.3, 0.2, 5), 5), (CyclicSchedule(0.1, 0.7, step_size_up=50), 5000)]),
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("first", [0, 3, 4060])
def test_mixed_kinds_on_threads(first: int, threads: int) -> None:
    steps = range(first, first + 11_003)
    expected = [schedule.values(np.array(steps)) for schedule in MIXED]
    torch.set_num_threads(threads)
    out = np.full((6, len(steps)), -1.0), np.full((6, len(steps)), -1.0)
    filled = evaluate(MIXED, steps, out=out)
    assert filled[0] is out[0]
    assert filled[1] is out[1]
    assert bits(out[0]) == bits([lr for lr, _ in expected])
    assert bits(out[1]) == bits([momentum for _, momentum in expected])
    assert bits(*evaluate(MIXED, np.array(steps))) == bits(*out)
    backwards = np.array(steps)[::-7]
    assert bits(*evaluate(MIXED, backwards)) == bits(*(array[:, ::-7] for array in out))


def test_the_first_invalid_value_of_a_piece_is_named() -> None:
    """lr and momentum where a piece has momentum; the NaN of one that has none is no invalid value."""
    negative = CyclicSchedule(0.0, 0.5, step_size_up=1, scale_fn=lambda cycle: -1.0 if cycle == 3 else 1.0)
    without = CyclicSchedule(
        0.1, 0.7, step_size_up=1, scale_fn=lambda cycle: 1.0 if cycle < 4 else 3.0, cycle_momentum=False
    )
    schedule = ScheduleSequence([(without, 6), (RampSchedule(0.0, 0.1, 3), 10), (negative, None)])
    good = ScheduleSequence([(without, None)])
    assert evaluate([good, MIXED[0], schedule], 21)[0].shape == (3, 21)
    for steps in (30, range(30), np.arange(30), np.arange(40)[::-1]):
        with pytest.raises(ValueError, match=r"schedule 2 at step=21 gives lr=-0\.5 momentum=1\.0"):
            evaluate([good, MIXED[0], schedule, schedule], steps)
    held = ScheduleSequence([(RampSchedule(0.0, 0.1, 3), 3), (negative, 6)])
    with pytest.raises(ValueError, match="the schedule at step=8 gives"):
        held.values(100)
    with pytest.raises(ValueError, match=f"the schedule at step={2**60} gives"):
        held.values([0, 7, 2**60])
