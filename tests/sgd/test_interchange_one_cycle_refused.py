"""Pairs with OneCycleLR that cannot be taken over, and schedules that cannot be given back, each named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from clr_native import FusedCyclicSGD, OneCycleSchedule
from helpers import assert_refused, every_parameter, give, parameters, raised
from torch_pairs import SGDS, STEPS, assert_within_torchs_rounding, one_cycle_pair, run, standing


def set_in_group(name: str, value: Any) -> Any:
    return lambda sgd, scheduler: sgd.param_groups[1].update({name: value})


def add_group(sgd: SGD, scheduler: Any) -> None:
    sgd.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})


def step_past_the_end(sgd: SGD, scheduler: OneCycleLR) -> None:
    scheduler.last_epoch = STEPS
    assert isinstance(raised(scheduler.step), ValueError)


class Halved(OneCycleLR):
    def get_lr(self) -> list[float | Tensor]:
        return [0.5 * lr for lr in super().get_lr()]


def become_halved(sgd: SGD, scheduler: OneCycleLR) -> None:
    scheduler.__class__ = Halved


def own_get_lr(sgd: SGD, scheduler: OneCycleLR) -> None:
    vars(scheduler)["get_lr"] = lambda: [0.5, 0.5]


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (
        set_in_group("lr", 0.5),
        ValueError,
        r"parameter group 1: lr=0\.5 is not the scheduler's value at last_epoch=7: put",
    ),
    (set_in_group("momentum", 0.5), ValueError, r"parameter group 1: momentum=0\.5 is not the scheduler's value"),
    (set_in_group("max_lr", 0.7), ValueError, "lr=.* is not the scheduler's value at last_epoch=7"),
    (lambda sgd, scheduler: setattr(scheduler, "last_epoch", 9), ValueError, "the scheduler's value at last_epoch=9"),
    (set_in_group("initial_lr", 0.0), ValueError, "parameter group 1: div_factor=inf must be finite"),
    (set_in_group("max_lr", 0.0), ValueError, "parameter group 1: div_factor=inf must be finite"),
    (set_in_group("min_lr", 0.0), ValueError, "parameter group 1: final_div_factor=inf must be finite"),
    (set_in_group("max_momentum", 0.1), ValueError, "base_momentum=0.85 must not be above max_momentum=0.1"),
    (
        lambda sgd, scheduler: setattr(scheduler, "total_steps", 99),
        ValueError,
        "total_steps=99 must be 60, where the ph",
    ),
    (add_group, ValueError, "of 2 parameter groups, the optimizer has 3"),
    (step_past_the_end, ValueError, r"last_epoch=61: the OneCycleLR has no value there \(.*\): set last_epoch=60"),
    (become_halved, TypeError, r"scheduler of type=Halved has a get_lr\(\) of its own"),
    (own_get_lr, TypeError, r"scheduler of type=OneCycleLR has a get_lr\(\) of its own"),
]


@pytest.mark.parametrize(("alter", "error", "message"), REFUSED)
def test_a_pair_altered_by_hand_is_refused(alter: Any, error: type[Exception], message: str) -> None:
    sgd, scheduler = one_cycle_pair(SGDS["plain"], {})
    run(sgd, range(7), scheduler)
    alter(sgd, scheduler)
    before = dict(scheduler.__dict__)
    assert_refused(lambda: FusedCyclicSGD.from_torch(sgd, scheduler), error, message, sgd)
    assert scheduler.__dict__ == before


def test_what_a_refusal_advises_is_taken() -> None:
    for advice in (lambda sgd, scheduler: set_in_group("lr", scheduler.get_last_lr()[1])(sgd, scheduler), run_once):
        sgd, scheduler = one_cycle_pair(SGDS["plain"], {})
        run(sgd, range(7), scheduler)
        sgd.param_groups[1]["lr"] = 0.5
        advice(sgd, scheduler)
        assert FusedCyclicSGD.from_torch(sgd, scheduler).applied_steps == scheduler.last_epoch


def run_once(sgd: SGD, scheduler: OneCycleLR) -> None:
    run(sgd, range(7, 8), scheduler)


def optimizer_of(*schedules: OneCycleSchedule, applied_steps: int = 0) -> FusedCyclicSGD:
    weights = parameters([2] * len(schedules))
    groups = zip(weights, schedules, strict=True)
    return FusedCyclicSGD([{"params": [p], "schedule": s, "applied_steps": applied_steps} for p, s in groups])


@pytest.mark.parametrize(
    ("schedules", "position", "message"),
    [
        ([OneCycleSchedule(0.1, 9, convention="fastai")], 0, "convention='torch' only"),
        ([OneCycleSchedule(0.1, 9), OneCycleSchedule(0.1, 8)], 0, "the same total_steps"),
        ([OneCycleSchedule(0.1, 9), OneCycleSchedule(0.1, 9, pct_start=0.5)], 0, "pct_start"),
        ([OneCycleSchedule(0.1, 9)], 9, "applied_steps=9 must be below total_steps=9"),
        ([OneCycleSchedule(0.1, 10, pct_start=0.1)], 0, "divides by the length of a phase, 0"),
    ],
)
def test_one_cycles_that_torch_does_not_have(schedules: list[Any], position: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimizer_of(*schedules, applied_steps=position).to_torch()


@pytest.mark.parametrize("position", [0, 4])
def test_factors_may_differ_between_groups_that_are_given_back(position: int) -> None:
    """torch takes one for all, and keeps the rates in the groups."""
    schedules = [OneCycleSchedule(0.1, 9), OneCycleSchedule(0.2, 9, div_factor=3.0, final_div_factor=7.0)]
    ours = optimizer_of(*schedules, applied_steps=position)
    sgd, scheduler = ours.to_torch()
    for step in range(position, 9):
        assert_within_torchs_rounding([standing(ours)], [standing(sgd)])
        for optimizer in (ours, sgd):
            give(every_parameter(optimizer), [torch.ones(2)] * 2)
        ours.step()
        if step < 8:
            sgd.step()
            scheduler.step()
