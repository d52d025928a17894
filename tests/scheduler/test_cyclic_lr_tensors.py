"""CyclicLR where tensors stand in the groups: they are filled in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import Adam

from clr_native import CyclicLR, CyclicSchedule
from helpers import picture
from schedulers import adam, advance, sgd, values, weights

CYCLE = CyclicSchedule(1, 5, step_size_up=4, base_momentum=0.25, max_momentum=0.75)


def test_tensors_are_filled_in_place() -> None:
    lr, beta = torch.tensor(7.0), torch.tensor(0.5)
    optimizer = Adam(weights(1), lr=lr, betas=(beta, torch.tensor(0.75)), foreach=False)
    (group,) = optimizer.param_groups
    betas = group["betas"]
    scheduler = CyclicLR(optimizer, schedule=CYCLE)
    for step in range(6):
        assert group["lr"] is lr
        assert group["betas"] is betas
        assert (lr.item(), beta.item()) == CYCLE(step)
        (last,) = scheduler.get_last_lr()
        assert isinstance(last, torch.Tensor)
        assert last is not lr
        assert torch.equal(last, lr)
        advance(scheduler)
    assert group["initial_lr"].item() == 7.0


def test_tensor_momentum_is_filled_in_place() -> None:
    optimizer = sgd()
    momentum = optimizer.param_groups[0]["momentum"] = torch.tensor(0.5)
    scheduler = CyclicLR(optimizer, schedule=CYCLE)
    assert optimizer.param_groups[0]["momentum"] is momentum
    assert momentum.item() == 0.75
    scheduler.last_epoch = -1
    assert momentum.item() == 0.5


def one_for_all_groups(name: str, tensor: torch.Tensor, other: torch.Tensor) -> Adam:
    optimizer = adam(2)
    for group, each in zip(optimizer.param_groups, [tensor, other], strict=True):
        group[name] = (each, 0.75) if name == "betas" else each
    return optimizer


@pytest.mark.parametrize("alias", [lambda tensor: tensor, lambda tensor: tensor.view(1)])
@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("lr", {"base_lr": [1, 2]}, r"parameter group 1: lr=2\.0 cannot .* group 0 holds too, with 1\.0: give each"),
        ("betas", {"max_momentum": [0.75, 0.5]}, r"parameter group 1: betas\[0\]=0\.5 cannot .* with 0\.75: give each"),
    ],
)
def test_a_tensor_that_groups_share_cannot_hold_two_values(
    name: str, arguments: dict[str, Any], message: str, alias: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """As Adam(groups, lr=tensor) makes it: the last group's value would be everybody's."""
    tensor = torch.tensor(0.625)
    optimizer = one_for_all_groups(name, tensor, alias(tensor))
    with pytest.raises(ValueError, match=message):
        CyclicLR(optimizer, **{"base_lr": 1, "max_lr": 5, "base_momentum": 0.25, **arguments})
    assert tensor.item() == 0.625


@pytest.mark.parametrize("name", ["lr", "betas"])
def test_a_tensor_that_groups_share_may_hold_one_value(name: str) -> None:
    tensor = torch.tensor(0.625)
    optimizer = one_for_all_groups(name, tensor, tensor)
    scheduler = CyclicLR(optimizer, 1, [5, 9], step_size_up=4, base_momentum=[0.25, 0.5], max_momentum=0.75)
    assert values(optimizer) == [(1.0, 0.75)] * 2
    before = picture(optimizer)
    with pytest.raises(ValueError, match=r"parameter group 1: .* that parameter group 0 holds too"):
        scheduler._update_lr()  # where their ways part
    assert picture(optimizer) == before
    assert scheduler.last_epoch == 0


def test_a_float_that_becomes_a_tensor_is_noticed_and_back() -> None:
    scheduler = CyclicLR(sgd(), schedule=CYCLE)
    (group,) = scheduler.optimizer.param_groups
    for step, value in enumerate([torch.tensor(7.0), 7.0, torch.tensor(7.0)], start=1):
        group["lr"] = value
        advance(scheduler)
        assert (group["lr"] is value) == isinstance(value, torch.Tensor)
        assert values(scheduler) == [CYCLE(step)]
