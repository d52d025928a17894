"""What stands in the group is obeyed: lr and momentum by hand for one update, settings at each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clr_native import CyclicSchedule, FusedCyclicSGD
from helpers import (
    assert_same_training,
    every_parameter,
    give,
    gradient_sets,
    hand_over,
    parameters,
    sgd_beside,
    train,
)

SCHEDULE = CyclicSchedule(0.125, 0.5, step_size_up=3)
LRS: dict[str, Callable[[], Any]] = {
    "float": lambda: 0.07,
    "zero": lambda: 0.0,
    "int": lambda: 1,
    "numpy": lambda: np.float64(0.07),
    "numpy fp32": lambda: np.float32(0.0625),
    "tensor": lambda: torch.tensor(0.0625),
    "tensor of one": lambda: torch.tensor([0.0625]),
    "fp64 tensor": lambda: torch.tensor(0.07, dtype=torch.float64),
}


def ours(over: Sequence[Tensor], **settings: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(over, 0.125, 0.5, step_size_up=3, **settings)


def stand(optimizer: FusedCyclicSGD, group: int = 0) -> tuple[int, float, float]:
    entries = optimizer.param_groups[group]
    return entries["applied_steps"], entries["lr"], entries["momentum"]


def scheduled(step: int) -> tuple[int, float, float]:
    lr, momentum = SCHEDULE(step)
    assert momentum is not None
    return step, lr, momentum


@pytest.mark.parametrize("lr", LRS)
def test_lr_by_hand_is_obeyed_once_and_does_not_advance(lr: str) -> None:
    over = parameters([20])
    optimizer = ours(over)
    sets = gradient_sets(over)
    train(optimizer, over, sets, 2)
    theirs, twins = sgd_beside(optimizer)
    optimizer.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = LRS[lr]()
    train(theirs, twins, sets, 1)
    train(optimizer, over, sets, 1)
    assert_same_training(optimizer, theirs)
    assert stand(optimizer) == scheduled(2)
    assert type(optimizer.param_groups[0]["lr"]) is float
    assert not optimizer.at_cycle_end
    hand_over(optimizer, theirs)
    train(theirs, twins, sets, 1)
    train(optimizer, over, sets, 1)
    assert_same_training(optimizer, theirs)
    assert stand(optimizer) == scheduled(3)


@pytest.mark.parametrize("momentum", [0.25, 0.0, 1.0, 1])
def test_momentum_by_hand_is_obeyed_once_and_does_not_advance(momentum: float) -> None:
    over = parameters([20])
    optimizer = ours(over)
    sets = gradient_sets(over)
    train(optimizer, over, sets, 2)
    before, buffer = over[0].detach().clone(), optimizer.state[over[0]]["momentum_buffer"].clone()
    optimizer.param_groups[0]["momentum"] = momentum
    train(optimizer, over, sets, 1)
    expected = torch.add(buffer * momentum, sets[0][0])
    assert torch.equal(optimizer.state[over[0]]["momentum_buffer"], expected)
    assert torch.equal(over[0], before.add(expected, alpha=-scheduled(2)[1]))
    assert stand(optimizer) == scheduled(2)


def test_driving_lr_by_hand_leaves_the_schedule_where_it_was() -> None:
    """Warm-up: as torch's SGD under the same loop."""
    over = parameters([20])
    optimizer = ours(over)
    theirs, twins = sgd_beside(optimizer)
    for step, gradients in enumerate(gradient_sets(over, 9)):
        optimizer.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = 0.01 * (step + 1)
        train(optimizer, over, [gradients], 1)
        train(theirs, twins, [gradients], 1)
    assert_same_training(optimizer, theirs)
    assert stand(optimizer) == scheduled(0)


def test_only_the_group_written_by_hand_stands_still() -> None:
    over = parameters([20, 20])
    optimizer = FusedCyclicSGD([{"params": [p]} for p in over], 0.125, 0.5, step_size_up=3)
    sets = gradient_sets(over)
    optimizer.param_groups[1]["lr"] = 0.01
    train(optimizer, over, sets, 1)
    assert [g["applied_steps"] for g in optimizer.param_groups] == [1, 0]
    train(optimizer, over, sets, 1)
    assert [g["applied_steps"] for g in optimizer.param_groups] == [2, 1]
    assert optimizer.applied_steps == 2


def test_the_same_value_written_again_is_the_schedules() -> None:
    over = parameters([20])
    optimizer, plain = ours(over), ours(parameters([20]))
    sets = gradient_sets(over)
    (group,) = optimizer.param_groups
    for _ in range(5):
        group["lr"], group["momentum"] = group["lr"] * 1.0, float(repr(group["momentum"]))
        train(optimizer, over, sets, 1)
        train(plain, every_parameter(plain), sets, 1)
    assert stand(optimizer) == scheduled(5)
    assert_same_training(optimizer, plain)


@pytest.mark.parametrize("zero", [0.0, 0, torch.tensor(0.0)], ids=["float", "int", "tensor"])
def test_a_zero_by_hand_where_the_schedule_says_zero_advances(zero: Any) -> None:
    """A value written where it stands is no override. The probe of torch.distributed is another matter."""
    over = parameters([20])
    optimizer = FusedCyclicSGD(over, 0.0, 0.5, step_size_up=1)
    sets = gradient_sets(over)
    optimizer.param_groups[0]["lr"] = zero
    train(optimizer, over, sets, 2)
    assert (optimizer.applied_steps, optimizer.get_last_lr()) == (2, [0.0])
    kept = optimizer.param_groups[0]["lr"]
    optimizer.param_groups[0]["lr"] = 0.3
    optimizer.param_groups[0]["lr"] = kept  # what stood there
    train(optimizer, over, sets, 1)
    assert optimizer.applied_steps == 3


def test_settings_are_read_at_each_step() -> None:
    over = parameters([20])
    optimizer = ours(over)
    theirs, twins = sgd_beside(optimizer)
    changes: list[dict[str, Any]] = [
        {},
        {"weight_decay": 0.25},
        {"weight_decay": torch.tensor(0.5)},
        {"dampening": 0.5},
        {"dampening": 0.0, "nesterov": True},
        {"maximize": True, "weight_decay": 0},
        {"nesterov": False, "maximize": False},
        {},
    ]
    for change, gradients in zip(changes, gradient_sets(over, len(changes)), strict=True):
        optimizer.param_groups[0].update(change)
        theirs.param_groups[0].update(change)
        hand_over(optimizer, theirs)
        train(optimizer, over, [gradients], 1)
        train(theirs, twins, [gradients], 1)
        assert_same_training(optimizer, theirs)
    assert optimizer.applied_steps == len(changes)


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_setting_changed_in_the_middle_of_a_step_counts_from_the_next_on(at: int) -> None:
    """By a scale_fn here: another thread does the same while the kernel runs."""

    def scale_fn(step: int) -> float:
        if step == at:
            optimizer.param_groups[0]["weight_decay"] = 0.25
        return 1.0

    over = parameters([20])
    optimizer = FusedCyclicSGD(over, 0.125, 0.5, step_size_up=3, scale_fn=scale_fn, scale_mode="iterations")
    theirs, twins = sgd_beside(optimizer)
    for gradients in gradient_sets(over, 8):
        hand_over(optimizer, theirs)
        theirs.param_groups[0]["weight_decay"] = optimizer.param_groups[0]["weight_decay"]
        train(optimizer, over, [gradients], 1)
        train(theirs, twins, [gradients], 1)
    assert_same_training(optimizer, theirs)
    assert optimizer.param_groups[0]["weight_decay"] == 0.25


@pytest.mark.parametrize("lr", [lambda: 0.07, lambda: torch.tensor(0.07, dtype=torch.float64)])
def test_an_lr_by_hand_outlives_a_refused_step(lr: Callable[[], Any]) -> None:
    over = parameters([20])
    optimizer = ours(over)
    sets = gradient_sets(over)
    train(optimizer, over, sets, 2)
    theirs, twins = sgd_beside(optimizer)
    optimizer.param_groups[0]["lr"] = value = lr()
    over[0].grad = torch.ones(20).to_sparse()
    for _ in range(2):
        with pytest.raises(TypeError, match="sparse"):
            optimizer.step()
    if isinstance(value, Tensor):
        value.mul_(2)  # in place: the same object
    hand_over(optimizer, theirs)
    theirs.param_groups[0]["lr"] = float(value)
    train(optimizer, over, sets, 1)
    train(theirs, twins, sets, 1)
    assert_same_training(optimizer, theirs)
    assert stand(optimizer) == scheduled(2)


def test_a_tensor_setting_changed_in_place_is_read_again() -> None:
    over = parameters([20])
    decay = torch.tensor(0.25)
    optimizer = ours(over)
    optimizer.param_groups[0]["weight_decay"] = decay
    theirs, twins = sgd_beside(optimizer)
    for gradients in gradient_sets(over, 4):
        hand_over(optimizer, theirs)
        train(optimizer, over, [gradients], 1)
        train(theirs, twins, [gradients], 1)
        assert_same_training(optimizer, theirs)
        decay.mul_(0.5)


def test_momentum_without_a_cycle_is_a_setting() -> None:
    """Changing it stays and the schedule goes on, as in torch."""
    over = parameters([20])
    optimizer = ours(over, cycle_momentum=False, momentum=0.75)
    theirs, twins = sgd_beside(optimizer)
    for step, gradients in enumerate(gradient_sets(over, 6)):
        if step == 3:
            optimizer.param_groups[0]["momentum"] = 0.25
        hand_over(optimizer, theirs)
        train(optimizer, over, [gradients], 1)
        train(theirs, twins, [gradients], 1)
    assert_same_training(optimizer, theirs)
    assert (optimizer.applied_steps, optimizer.get_last_momentum()) == (6, [0.25])


def test_position_by_hand_moves_the_schedule() -> None:
    over = parameters([20])
    optimizer = ours(over)
    sets = gradient_sets(over)
    train(optimizer, over, sets, 2)
    jumped = ours(parameters([20]))
    train(jumped, every_parameter(jumped), sets, 2)
    jumped.seek(10)
    optimizer.param_groups[0]["applied_steps"] = 10
    optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"] = scheduled(10)[1:]
    give(every_parameter(jumped), sets[0])
    jumped.step()
    give(over, sets[0])
    optimizer.step()
    assert_same_training(optimizer, jumped)
    assert stand(optimizer) == stand(jumped) == scheduled(11)
