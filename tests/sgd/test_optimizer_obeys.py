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
    Beside,
    assert_refused,
    assert_same_training,
    every_parameter,
    go_on,
    gradient_sets,
    parameters,
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
    optimizer = ours(parameters([20]))
    go_on(optimizer, 2)
    beside = Beside(optimizer)
    optimizer.param_groups[0]["lr"] = LRS[lr]()
    for position, gradients in enumerate(gradient_sets(beside.over, 2), 2):
        beside.step(gradients)
        beside.assert_same()
        assert stand(optimizer) == scheduled(position)
        assert type(optimizer.param_groups[0]["lr"]) is float
        assert not optimizer.at_cycle_end


@pytest.mark.parametrize("momentum", [0.25, 0.0, 1.0, 1])
def test_momentum_by_hand_is_obeyed_once_and_does_not_advance(momentum: float) -> None:
    over = parameters([20])
    optimizer = ours(over)
    sets = gradient_sets(over)
    go_on(optimizer, 2)
    before, buffer = over[0].detach().clone(), optimizer.state[over[0]]["momentum_buffer"].clone()
    optimizer.param_groups[0]["momentum"] = momentum
    train(optimizer, over, sets, 1)
    expected = torch.add(buffer * momentum, sets[0][0])
    assert torch.equal(optimizer.state[over[0]]["momentum_buffer"], expected)
    assert torch.equal(over[0], before.add(expected, alpha=-scheduled(2)[1]))
    assert stand(optimizer) == scheduled(2)


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
    go_on(optimizer, 2)
    assert (optimizer.applied_steps, optimizer.get_last_lr()) == (2, [0.0])
    kept = optimizer.param_groups[0]["lr"]
    optimizer.param_groups[0]["lr"] = 0.3
    optimizer.param_groups[0]["lr"] = kept  # what stood there
    train(optimizer, over, sets, 1)
    assert optimizer.applied_steps == 3


def test_settings_are_read_at_each_step() -> None:
    """A tensor's number too, which may change in place."""
    decay = torch.tensor(0.5)
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda group: None,
        lambda group: group.update(weight_decay=0.25),
        lambda group: group.update(weight_decay=decay),
        lambda group: decay.fill_(0.125) if group is beside.ours.param_groups[0] else None,
        lambda group: group.update(dampening=0.5),
        lambda group: group.update(dampening=0.0, nesterov=True),
        lambda group: group.update(maximize=True, weight_decay=0),
        lambda group: group.update(nesterov=False, maximize=False),
        lambda group: None,
    ]
    beside = Beside(ours(parameters([20])))
    for change, gradients in zip(changes, gradient_sets(beside.over, len(changes)), strict=True):
        for optimizer in (beside.ours, beside.theirs):
            change(optimizer.param_groups[0])
        beside.step(gradients)
        beside.assert_same()
    assert beside.ours.applied_steps == len(changes)


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_setting_changed_in_the_middle_of_a_step_counts_from_the_next_on(at: int) -> None:
    """By a scale_fn here: another thread does the same while the kernel runs."""

    def scale_fn(step: int) -> float:
        if step == at:
            optimizer.param_groups[0]["weight_decay"] = 0.25
        return 1.0

    optimizer = ours(parameters([20]), scale_fn=scale_fn, scale_mode="iterations")
    beside = Beside(optimizer)
    for gradients in gradient_sets(beside.over, 8):
        beside.theirs.param_groups[0]["weight_decay"] = optimizer.param_groups[0]["weight_decay"]
        beside.step(gradients)
    beside.assert_same()
    assert optimizer.param_groups[0]["weight_decay"] == 0.25


@pytest.mark.parametrize("lr", [lambda: 0.07, lambda: torch.tensor(0.07, dtype=torch.float64)])
def test_an_lr_by_hand_outlives_a_refused_step(lr: Callable[[], Any]) -> None:
    over = parameters([20])
    optimizer = ours(over)
    go_on(optimizer, 2)
    beside = Beside(optimizer)
    optimizer.param_groups[0]["lr"] = value = lr()
    over[0].grad = torch.ones(20).to_sparse()
    assert_refused(optimizer.step, TypeError, "sparse", optimizer)
    if isinstance(value, Tensor):
        value.mul_(2)  # in place: the same object
    beside.step(gradient_sets(over, 1)[0])
    beside.assert_same()
    assert stand(optimizer) == scheduled(2)
