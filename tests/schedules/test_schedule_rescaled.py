"""The same curve over more steps or fewer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from clr_native import CyclicSchedule, FusedCyclicSGD, OneCycleSchedule, RampSchedule, ScheduleSequence
from clr_native.schedules import Schedule
from helpers import halving

SCHEDULES: dict[str, Schedule] = {
    "triangular": CyclicSchedule(0.1, 0.5, step_size_up=6, step_size_down=10),
    "decaying": CyclicSchedule(0.1, 0.5, step_size_up=4, mode="triangular2", window="hann"),
    "exponential": CyclicSchedule(0.1, 0.5, step_size_up=4, mode="exp_range", gamma=0.99),
    "linear": CyclicSchedule(0.1, 0.5, step_size_up=4, mode="linear_range", decay_steps=24),
    "by cycle": CyclicSchedule(0.1, 0.5, step_size_up=4, scale_fn=halving),
    "one cycle": OneCycleSchedule(0.5, 40),
    "ramp": RampSchedule(0.0, 0.5, 12),
    "sequence": ScheduleSequence([(RampSchedule(0.0, 0.1, 8), 8), (CyclicSchedule(0.1, 0.5, step_size_up=4), None)]),
}


@pytest.mark.parametrize("factor", [2, 0.5, 1, 3])
@pytest.mark.parametrize("name", SCHEDULES)
def test_values_are_those_of_the_same_place(name: str, factor: float) -> None:
    """One cycle ends a step before its length, and so is the same at its ends alone."""
    schedule, other = SCHEDULES[name], SCHEDULES[name].rescaled(factor)
    steps = [0, 39] if name == "one cycle" else range(0, 40, 2)
    for step in steps:
        at = 40 * factor - 1 if step == 39 else step * factor
        value, found = schedule(step), other(int(at))
        assert found.lr == pytest.approx(value.lr, rel=1e-13)
        assert (found.momentum is None) == (value.momentum is None)
        if value.momentum is not None:
            assert found.momentum == pytest.approx(value.momentum, rel=1e-13)
    assert other.rescaled(1 / factor) == schedule or name == "exponential"


def test_sizes_are_rounded_and_stay_at_least_one() -> None:
    schedule = CyclicSchedule(0.1, 0.5, step_size_up=5, step_size_down=1).rescaled(0.4)
    assert (schedule.step_size_up, schedule.step_size_down) == (2, 1)
    assert CyclicSchedule(0.1, 0.5, step_size_up=5).rescaled(0.5).step_size_up == 3
    assert OneCycleSchedule(0.1, epochs=3, steps_per_epoch=7).rescaled(2 / 3).total_steps == 14


REFUSED: list[tuple[Any, type[Exception]]] = [
    *((bad, ValueError) for bad in (0, -1.0, math.nan, math.inf, 1e16)),
    *((bad, TypeError) for bad in ("2", True, None)),
]


@pytest.mark.parametrize(("factor", "error"), REFUSED)
def test_refused(factor: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"factor=|step_size_up="):
        CyclicSchedule(0.1, 0.5).rescaled(factor)


def test_a_function_of_steps_is_refused() -> None:
    schedule = CyclicSchedule(0.1, 0.5, scale_fn=halving, scale_mode="iterations")
    with pytest.raises(ValueError, match="scale_mode='iterations'"):
        ScheduleSequence([(schedule, None)]).rescaled(2)


def test_an_optimizer_goes_on() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    schedule = CyclicSchedule(0.1, 0.5, step_size_up=6)
    optimizer = FusedCyclicSGD([weight], schedule=schedule)
    for _ in range(8):
        weight.grad = torch.ones(3)
        optimizer.step()
    for group in optimizer.param_groups:
        group["schedule"] = schedule.rescaled(0.5).to_dict()
    optimizer.seek(round(optimizer.applied_steps * 0.5))
    assert optimizer.applied_steps == 4
    assert optimizer.get_last_lr() == [schedule(8).lr]
    weight.grad = torch.ones(3)
    optimizer.step()
    assert optimizer.last_lr == [schedule(8).lr]
    assert optimizer.get_last_lr() == [schedule(10).lr]
