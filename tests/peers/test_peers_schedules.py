"""Faults of today's schedules that must not be ours: lines marked T under "CyclicLR and OneCycleLR" in peers.md.

Those about schedules alone; beside each, where it is cheap to show, the fault in the installed torch, skipped where
that has been mended. Overflows stand in test_schedule_values.py, OneCycleLR's ends in test_schedule_one_cycle.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from amp_helpers import mended
from clr_native import CyclicSchedule
from helpers import raised
from references import LARGEST_STEP, lr_and_momentum, ulp_error

NAN = math.nan


def torch_cyclic(**arguments: Any) -> torch.optim.lr_scheduler.CyclicLR:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    limits: dict[str, Any] = {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 5}
    return torch.optim.lr_scheduler.CyclicLR(optimizer, **{**limits, **arguments})


def torch_lrs(steps: Sequence[int], **arguments: Any) -> list[float]:
    scheduler = torch_cyclic(**arguments)
    scheduler.optimizer.step()
    found = []
    for step in steps:
        scheduler.last_epoch = step - 1
        scheduler.step()
        found += [float(lr) for lr in scheduler.get_last_lr()]
    return found


# triangular2 raises OverflowError at cycle 1025 (pytorch#52989), exp_range with gamma 1.1 at step 7448.


def test_triangular2_past_cycle_1025_is_the_base_rate() -> None:
    schedule = CyclicSchedule(0.1, 0.5, step_size_up=5, mode="triangular2")
    peaks = [10 * cycle + 5 for cycle in (1024, 1025, 1026, 10**6, LARGEST_STEP // 10 - 1)]
    assert set(schedule.values(peaks)[0]) == {0.1}
    assert set(schedule.values(range(10_240, 12_000))[0]) == {0.1}


def test_torch_triangular2_overflows() -> None:
    error = raised(lambda: torch_lrs([10 * 1025 + 5], mode="triangular2"))
    if error is None:
        mended("triangular2 goes on")
    assert isinstance(error, OverflowError)


def test_exp_range_is_right_while_it_is_finite_and_then_refused_by_step() -> None:
    schedule = CyclicSchedule(0.1, 0.5, step_size_up=5, mode="exp_range", gamma=1.1, cycle_momentum=False)
    for step in range(7441, 7450):
        assert ulp_error(schedule(step).lr, lr_and_momentum(schedule, step)[0]) <= 2
    for step in (7465, 10**6 + 5):
        with pytest.raises(ValueError, match=f"at step={step} gives lr=(inf|nan)"):
            schedule(step)


def test_torch_exp_range_overflows() -> None:
    error = raised(lambda: torch_lrs([7448], mode="exp_range", gamma=1.1))
    if error is None:
        mended("exp_range goes on")
    assert isinstance(error, OverflowError)


# Peaks miss max_lr by ulps at almost every cycle for 3/7 or 333/667.


@pytest.mark.parametrize(("up", "down"), [(3, 7), (333, 667)])
def test_peaks_and_bottoms_are_the_boundaries(up: int, down: int) -> None:
    schedule = CyclicSchedule(0.001, 0.006, step_size_up=up, step_size_down=down)
    bottoms = [cycle * (up + down) for cycle in range(1000)]
    assert set(schedule.values([step + up for step in bottoms])[0]) == {0.006}
    assert set(schedule.values(bottoms)[0]) == {0.001}


@pytest.mark.parametrize(("up", "down"), [(3, 7), (333, 667)])
def test_torch_peaks_miss_them(up: int, down: int) -> None:
    peaks = [cycle * (up + down) + up for cycle in range(1000)]
    lrs = torch_lrs(peaks, base_lr=0.001, max_lr=0.006, step_size_up=up, step_size_down=down)
    if set(lrs) == {0.006}:
        mended("peaks are max_lr")
    assert sum(lr != 0.006 for lr in lrs) > 500


# The phase error is 6e-5 at step 1e12, 6e-2 at 1e15.


FAR = [(10**12 + 1, 1e-6), (10**15 + 1, 1e-3), (LARGEST_STEP - 3, 0.0)]


@pytest.mark.parametrize("step", [step for step, _ in FAR])
def test_the_phase_is_exact_however_far(step: int) -> None:
    schedule = CyclicSchedule(0.0, 1.0, step_size_up=3, step_size_down=7)
    assert ulp_error(schedule(step).lr, lr_and_momentum(schedule, step)[0]) <= 0.5


def test_torch_loses_the_phase() -> None:
    schedule = CyclicSchedule(0.0, 1.0, step_size_up=3, step_size_down=7)
    for step, least in FAR[:2]:
        steps = range(step, step + 50)
        lrs = torch_lrs(steps, base_lr=0.0, max_lr=1.0, step_size_up=3, step_size_down=7)
        pairs = zip(steps, lrs, strict=True)
        if max(abs(Fraction(lr) - lr_and_momentum(schedule, at)[0]) for at, lr in pairs) < least:
            mended("the phase is exact")


# base + (max - base) * 1.0 exceeds max_lr by an ulp for 1 % of pairs.


def pairs_of_boundaries() -> list[tuple[float, float]]:
    random = np.random.default_rng(1506)
    return [
        (low, low * factor)
        for low, factor in zip(*random.uniform((1e-4, 1), (1e-3, 9), (2000, 2)).T.tolist(), strict=True)
    ]


def test_max_lr_is_never_exceeded() -> None:
    for low, high in pairs_of_boundaries():
        assert CyclicSchedule(low, high, step_size_up=3)(3).lr == high


def test_the_plain_formula_exceeds_it() -> None:
    """Torch's, in doubles."""
    assert sum(low + (high - low) * 1.0 > high for low, high in pairs_of_boundaries()) > 5


# Accepted without a word.


ACCEPTED: dict[str, tuple[dict[str, Any], str, bool]] = {
    # Arguments, what our error names, does torch evaluate it without a word?
    "negative size": ({"step_size_up": -5}, "step_size_up=-5", True),
    "negative size down": ({"step_size_down": -3}, "step_size_down=-3", True),
    "NaN lr": ({"base_lr": NAN}, "base_lr=nan", True),
    "NaN max_lr": ({"max_lr": NAN}, "max_lr=nan", True),
    "negative lr": ({"base_lr": -0.1}, "base_lr=-0.1", True),
    "momentum 1.5": ({"max_momentum": 1.5}, "max_momentum=1.5", True),
    "any scale_mode": ({"scale_mode": "epochs", "scale_fn": lambda x: 1.0}, "scale_mode='epochs'", True),
    "max below base": ({"base_lr": 0.6}, "base_lr=0.6 must not be above max_lr=0.5", True),
    "an array of lrs": ({"max_lr": np.array([0.5, 0.6])}, "max_lr=array([0.5, 0.6])", True),
    "size 0": ({"step_size_up": 0, "step_size_down": 0}, "step_size_up=0", False),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_refused_by_name(what: str) -> None:
    arguments, message, _ = ACCEPTED[what]
    error = raised(lambda: CyclicSchedule(**{"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 5, **arguments}))
    assert isinstance(error, (TypeError, ValueError))
    assert message in str(error)


@pytest.mark.parametrize("what", ACCEPTED)
def test_torch_takes_it(what: str) -> None:
    arguments, _, quietly = ACCEPTED[what]

    def two_steps() -> None:
        scheduler = torch_cyclic(**arguments)
        scheduler.optimizer.step()
        scheduler.step()

    error = raised(two_steps)
    if isinstance(error, ZeroDivisionError):
        assert not quietly
    elif error is not None:
        mended(f"{what}: {error}")
