"""What CyclicLR writes, step by step: torch's cases in numbers, and what optimizers make of it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import Optimizer, lr_scheduler

from clr_native import CyclicLR, CyclicSchedule, OneCycleSchedule, RampSchedule, ScheduleSequence
from clr_native.schedules import Schedule
from helpers import clones, every_parameter, give, gradient_sets, parameters
from schedulers import adam, advance, momenta, rates, sgd, values, weights

RATES: dict[str, Any] = {"base_lr": 1, "max_lr": 5}
ALONE: dict[str, Any] = {"cycle_momentum": False}
# Arguments, and lr and momentum of each group at the first steps; binary fractions, so that all of it is exact.
CASES: dict[str, tuple[dict[str, Any], list[list[float]], list[list[float]]]] = {
    "one policy for all groups": (
        {**RATES, "step_size_up": 4, "base_momentum": 0.25, "max_momentum": 0.75},
        [[1, 2, 3, 4, 5, 4, 3, 2, 1, 2, 3]] * 2,
        [[0.75, 0.625, 0.5, 0.375, 0.25, 0.375, 0.5, 0.625, 0.75, 0.625, 0.5]] * 2,
    ),
    "triangular2": (
        {**RATES, "step_size_up": 2, "mode": "triangular2", **ALONE},
        [[1, 3, 5, 3, 1, 2, 3, 2, 1, 1.5, 2, 1.5, 1]] * 2,
        [[0.5] * 13] * 2,
    ),
    "exp_range": (
        {**RATES, "step_size_up": 2, "mode": "exp_range", "gamma": 0.5, **ALONE},
        [[1, 2, 2, 1.25, 1, 1.0625, 1.0625]] * 2,
        [[0.5] * 7] * 2,
    ),
    "unequal halves": (
        {**RATES, "step_size_up": 2, "step_size_down": 4, "base_momentum": 0.5, "max_momentum": 0.75},
        [[1, 3, 5, 4, 3, 2, 1, 3]] * 2,
        [[0.75, 0.625, 0.5, 0.5625, 0.625, 0.6875, 0.75, 0.625]] * 2,
    ),
    "lists, one entry a group": (
        {
            "base_lr": [1, 2],
            "max_lr": (5, 10),
            "step_size_up": [4, 2],
            "base_momentum": [0.25, 0.5],
            "max_momentum": [0.75, 1.0],
            "mode": ["triangular", "triangular2"],
        },
        [[1, 2, 3, 4, 5, 4, 3], [2, 6, 10, 6, 2, 4, 6]],
        [[0.75, 0.625, 0.5, 0.375, 0.25, 0.375, 0.5], [1, 0.75, 0.5, 0.75, 1, 0.875, 0.75]],
    ),
    "scale_fn of the cycle": (
        {**RATES, "step_size_up": 1, "scale_fn": lambda cycle: 1 / cycle, **ALONE},
        [[1, 5, 1, 3, 1]] * 2,
        [[0.5] * 5] * 2,
    ),
    "scale_fn of the iteration": (
        {
            **RATES,
            "step_size_up": 2,
            "scale_fn": lambda iteration: 0.5**iteration,
            "scale_mode": "iterations",
            "base_momentum": 0.5,
            "max_momentum": 1.0,
        },
        [[1, 2, 2, 1.25, 1]] * 2,
        [[1, 0.875, 0.875, 0.96875, 1]] * 2,
    ),
    "constant": ({"base_lr": 2, "max_lr": 2, **ALONE}, [[2] * 3] * 2, [[0.5] * 3] * 2),
    "welch and hann": (
        {**RATES, "step_size_up": 2, "window": ["welch", "hann"], **ALONE},
        [[1, 4, 5, 4, 1], [1, 3, 5, 3, 1]],
        [[0.5] * 5] * 2,
    ),
    "decaying to zero over some steps": (
        {**RATES, "step_size_up": 1, "mode": "linear_range", "decay_steps": 4, "decay_base": True, **ALONE},
        [[1, 3.75, 0.5, 1.25, 0]] * 2,
        [[0.5] * 5] * 2,
    ),
    "any schedule": (
        {"schedule": [RampSchedule(4, 2, 2), ScheduleSequence([(RampSchedule(1, 1, 1, momentum=0.25), 2)])]},
        [[4, 3, 2, 2], [1, 1, 1, 1]],
        [[0.5] * 4, [0.25] * 4],
    ),
}


@pytest.mark.parametrize("optimizer_of", [sgd, adam])
@pytest.mark.parametrize("name", CASES)
def test_values_step_by_step(name: str, optimizer_of: Callable[[int], Optimizer]) -> None:
    arguments, expected_lr, expected_momentum = CASES[name]
    scheduler = CyclicLR(optimizer_of(2), **arguments)
    assert isinstance(scheduler, lr_scheduler.LRScheduler)
    for step in range(len(expected_lr[0])):
        assert scheduler.last_epoch == step
        assert rates(scheduler) == [row[step] for row in expected_lr]
        assert momenta(scheduler) == [row[step] for row in expected_momentum]
        assert scheduler.get_last_lr() == scheduler.get_lr() == rates(scheduler)
        advance(scheduler)


def test_arguments_are_torchs_in_name_order_and_default() -> None:
    ours, theirs = (
        {name: p.default for name, p in inspect.signature(each).parameters.items() if p.kind is not p.KEYWORD_ONLY}
        for each in (CyclicLR, lr_scheduler.CyclicLR)
    )
    assert list(ours) == list(theirs)
    assert {name for name in ours if ours[name] != theirs[name]} == {"base_lr", "max_lr"}  # which schedule= replaces


@pytest.mark.parametrize("epoch", [0, 1, 5, 2**53 + 1])
def test_last_epoch_goes_on_with_the_next_values(epoch: int) -> None:
    schedule = CyclicSchedule(1, 5, step_size_up=4)
    scheduler = CyclicLR(sgd(), schedule=schedule, last_epoch=epoch)
    assert scheduler.last_epoch == epoch + 1
    assert values(scheduler) == [schedule(epoch + 1)]


def test_step_with_an_epoch_warns_and_jumps() -> None:
    scheduler = CyclicLR(sgd(), 1, 5, step_size_up=4)
    scheduler.optimizer.step()
    with pytest.warns(UserWarning, match="epoch parameter"):
        scheduler.step(3)
    assert (scheduler.last_epoch, rates(scheduler)) == (3, [4.0])
    with pytest.warns(UserWarning, match="epoch parameter"), pytest.raises(ValueError, match="step=-4 must be"):
        scheduler.step(-4)
    assert (scheduler.last_epoch, rates(scheduler)) == (3, [4.0])


def test_torchs_warnings_about_the_order_of_calls() -> None:
    scheduler = CyclicLR(sgd(), 1, 5)
    with pytest.warns(UserWarning, match=r"lr_scheduler.step\(\)` before `optimizer.step\(\)"):
        scheduler.step()
    replaced = sgd()
    scheduler = CyclicLR(replaced, 1, 5)
    replaced.step = lambda closure=None: None  # type: ignore[method-assign]  # what torch warns of
    with pytest.warns(UserWarning, match="has been overridden"):
        scheduler.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.step()


def test_groups_that_share_a_schedule_share_its_value() -> None:
    called: list[int] = []

    def scale(cycle: int) -> float:
        called.append(cycle)
        return 0.5

    scheduler = CyclicLR(sgd(3), 1, 5, step_size_up=2, scale_fn=scale)
    called.clear()
    advance(scheduler)
    assert called == [1]
    first, *others = scheduler.optimizer.param_groups
    for group in others:
        assert group["lr"] is first["lr"]
        assert group["momentum"] is first["momentum"]


# --- the optimizers -------------------------------------------------------------------------------------------------


def tensor_lr_adam(over: list[torch.Tensor]) -> Optimizer:
    return torch.optim.Adam(over, lr=torch.tensor(0.125), betas=(torch.tensor(0.5), torch.tensor(0.75)), foreach=False)


OPTIMIZERS: dict[str, Callable[[list[torch.Tensor]], Optimizer]] = {
    "Nesterov SGD": lambda over: torch.optim.SGD(over, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": torch.optim.Adam,
    "RMSprop": torch.optim.RMSprop,
    "Adagrad": torch.optim.Adagrad,
    "Adadelta": torch.optim.Adadelta,
    "SGD": lambda over: torch.optim.SGD(over, lr=0.1, weight_decay=0.01),
    "AdamW": lambda over: torch.optim.AdamW(over, amsgrad=True),
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Adamax": torch.optim.Adamax,
    "Adam with tensors for lr and betas": tensor_lr_adam,
}
WITHOUT_MOMENTUM = ("Adagrad", "Adadelta")
SCHEDULES: dict[str, Callable[[bool], Schedule]] = {
    "cyclic": lambda momentum: CyclicSchedule(0.01, 0.1, step_size_up=3, mode="triangular2", cycle_momentum=momentum),
    "one cycle": lambda momentum: OneCycleSchedule(0.1, 12, cycle_momentum=momentum),
}


def put(group: dict[str, Any], lr: float, momentum: float | None) -> None:
    """By hand, as torch's schedulers do."""
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr
    if momentum is None:
        return
    if "betas" not in group:
        group["momentum"] = momentum
    elif isinstance(group["betas"][0], torch.Tensor):
        group["betas"][0].fill_(momentum)
    else:
        group["betas"] = (momentum, *group["betas"][1:])


@pytest.mark.parametrize("schedule_name", SCHEDULES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_trains_as_driven_by_hand(name: str, schedule_name: str) -> None:
    schedule = SCHEDULES[schedule_name](name not in WITHOUT_MOMENTUM)
    over = parameters([5, (3, 4)])
    twins = clones(over)
    ours, theirs = OPTIMIZERS[name](over), OPTIMIZERS[name](twins)
    scheduler = CyclicLR(ours, schedule=schedule)
    start = clones(over)
    for step, gradients in enumerate(gradient_sets(over, 10)):
        put(theirs.param_groups[0], *schedule(step))
        for optimizer, tensors in ((ours, over), (theirs, twins)):
            give(tensors, gradients)
            optimizer.step()
        assert all(torch.equal(p, q) for p, q in zip(over, twins, strict=True))
        scheduler.step()
    assert not any(torch.equal(p, q) for p, q in zip(every_parameter(ours), start, strict=True))


def test_sparse_adam_keeps_its_other_beta() -> None:
    optimizer = torch.optim.SparseAdam([torch.nn.Parameter(torch.ones(3))], betas=(0.5, 0.25))
    CyclicLR(optimizer, 1, 5, base_momentum=0.25, max_momentum=0.75)
    assert optimizer.param_groups[0]["betas"] == (0.75, 0.25)


class ThreeBetas(torch.optim.Optimizer):
    """As of Adan, with a list, which some optimizers keep."""

    def __init__(self) -> None:
        super().__init__(weights(1), {"lr": 1.0, "betas": [0.5, 0.25, 0.125], "momentum": 7.0})


def test_any_number_of_betas() -> None:
    optimizer = ThreeBetas()
    CyclicLR(optimizer, 1, 5, base_momentum=0.25, max_momentum=0.75)
    assert optimizer.param_groups[0]["betas"] == (0.75, 0.25, 0.125)
    assert optimizer.param_groups[0]["momentum"] == 7.0
