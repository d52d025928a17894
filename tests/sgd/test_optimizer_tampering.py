"""Groups, positions and memory changed behind the optimizer's back: between steps, within one, after a refused one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from clr_native import CyclicSchedule, FusedCyclicSGD
from helpers import Beside, assert_refused, give, parameters, raised

SCHEDULE = CyclicSchedule(0.125, 0.5, step_size_up=3)


def made(groups: int = 1, **settings: Any) -> tuple[FusedCyclicSGD, list[Tensor]]:
    """One parameter in each group, after one step."""
    over = parameters([5] * groups)
    optimizer = FusedCyclicSGD([{"params": [p]} for p in over], 0.125, 0.5, **({"step_size_up": 3} | settings))
    give(over, [torch.ones(5)] * groups)
    optimizer.step()
    return optimizer, over


def refused(optimizer: FusedCyclicSGD, parameter: Tensor) -> None:
    """A step that cannot be made, and the gradient put right again."""
    kept, parameter.grad = parameter.grad, torch.ones_like(parameter).to_sparse()
    with pytest.raises(TypeError, match="sparse"):
        optimizer.step()
    parameter.grad = kept


@pytest.mark.parametrize("extra", [{}, {"frozen": parameters([5])}], ids=["alone", "another list of tensors"])
def test_a_group_without_params_is_refused_every_time(extra: dict[str, Any]) -> None:
    (weight,) = parameters([5])
    optimizer = FusedCyclicSGD([{"params": [weight], **extra}], 0.125, 0.5)
    for each in (weight, *extra.get("frozen", [])):
        each.grad = torch.ones(5)
    optimizer.step()
    kept = optimizer.param_groups[0].pop("params")
    for _ in range(3):
        with pytest.raises(ValueError, match="'params'"):
            optimizer.step()
    optimizer.param_groups[0]["params"] = kept
    optimizer.step()
    assert optimizer.applied_steps == 2


def test_parameters_taken_out_after_a_refused_step_are_left_alone() -> None:
    optimizer, (weight,) = made()
    listed = optimizer.param_groups[0]["params"]
    listed[:] = ["no tensor"]
    with pytest.raises(TypeError, match="parameter 0 of group 0"):
        optimizer.step()
    listed.clear()
    before = weight.detach().clone()
    optimizer.step()
    assert torch.equal(weight, before)


def test_a_position_written_while_another_is_read_counts_from_the_next_step_on() -> None:
    def scale_fn(step: int) -> float:
        if armed:
            armed.pop()
            optimizer.param_groups[0]["applied_steps"] = 2
        return 1.0

    armed: list[int] = []
    optimizer, (weight,) = made(scale_fn=scale_fn, scale_mode="iterations")
    optimizer.param_groups[0]["applied_steps"] = 9
    armed.append(1)
    refused(optimizer, weight)
    assert optimizer.applied_steps == 2
    optimizer.step()
    assert optimizer.applied_steps == 3


@pytest.mark.parametrize("refuse", [False, True])
@pytest.mark.parametrize("first", [0, 1])
def test_memory_that_comes_to_overlap_is_updated_in_turn(first: int, refuse: bool) -> None:
    """With the same first element or another, straight away or after a refused step."""

    def pair() -> tuple[Tensor, list[Tensor]]:
        base, over = torch.arange(8.0), parameters([4, 4])
        over[0].data, over[1].data = base[:4], base[4:]
        give(over, [torch.ones(4)] * 2)
        return base, over

    (base, over), (twin, twins) = pair(), pair()
    ours = FusedCyclicSGD(over, 0.5, 0.5, cycle_momentum=False, momentum=0.0)
    theirs = SGD(twins, lr=0.5, foreach=False)
    ours.step()
    theirs.step()
    over[0].data, twins[0].data = base[first::2], twin[first::2]
    if refuse:
        refused(ours, over[0])
        give(over, [torch.ones(4)] * 2)
    ours.step()
    theirs.step()
    assert torch.equal(base, twin)


def test_lr_by_hand_is_obeyed_beside_a_group_taken_out_and_one_added() -> None:
    optimizer, over = made(3)
    optimizer.param_groups.pop(0)
    optimizer.add_param_group({"params": parameters([5])})
    optimizer.param_groups[1]["lr"] = 0.0
    before = over[2].detach().clone()
    optimizer.step()
    assert torch.equal(over[2], before)
    assert [group["applied_steps"] for group in optimizer.param_groups] == [2, 1, 2]


def test_what_stands_in_a_new_dict_is_obeyed() -> None:
    optimizer, (weight,) = made()
    optimizer.param_groups[0] = dict(optimizer.param_groups[0], lr=0.0, momentum=0.0)
    before = weight.detach().clone()
    optimizer.step()
    assert torch.equal(weight, before)
    assert (optimizer.applied_steps, optimizer.get_last_lr()) == (1, [SCHEDULE(1).lr])
    optimizer.param_groups[0] = dict(optimizer.param_groups[0])
    optimizer.step()
    assert (optimizer.applied_steps, optimizer.get_last_lr()) == (2, [SCHEDULE(2).lr])


def test_a_refused_new_dict_is_not_changed() -> None:
    optimizer, _ = made()
    optimizer.param_groups[0] = dict(optimizer.param_groups[0], lr=0.0, weight_decay=-1.0)
    assert_refused(optimizer.step, ValueError, r"weight_decay=-1\.0", optimizer)
    assert not optimizer.at_cycle_end


@pytest.mark.parametrize("groups", [1, 2])
def test_of_new_schedules_the_last_one_refused_none_counts(groups: int) -> None:
    optimizer, _ = made(groups)
    for group in optimizer.param_groups:
        group["schedule"] = CyclicSchedule(0.25, 1.0, step_size_up=2)
    optimizer.param_groups[-1]["weight_decay"] = -1.0
    assert_refused(optimizer.step, ValueError, rf"group {groups - 1}: weight_decay=-1\.0", optimizer)
    optimizer.param_groups[-1]["weight_decay"] = 0.0
    optimizer.step()
    assert optimizer.get_last_lr() == [1.0] * groups


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_refused_step_does_not_change_where_the_cycle_stands(by_hand: bool) -> None:
    optimizer, (weight,) = made(step_size_up=1)
    optimizer.step()
    assert optimizer.at_cycle_end
    optimizer.param_groups[0]["lr"] = 0.01
    if by_hand:
        optimizer.step()
        assert not optimizer.at_cycle_end
    refused(optimizer, weight)
    assert optimizer.at_cycle_end is not by_hand


def test_a_group_that_is_listed_twice_is_refused() -> None:
    optimizer, _ = made()
    optimizer.param_groups.append(optimizer.param_groups[0])
    assert_refused(optimizer.step, ValueError, "param_groups holds the same dict twice", optimizer)
    optimizer.param_groups.pop()
    optimizer.step()
    assert optimizer.applied_steps == 2


def test_after_the_last_update_the_optimizer_can_still_be_saved() -> None:
    optimizer, _ = made()
    optimizer.seek(2**63 - 2)
    optimizer.step()
    for twin in copy.deepcopy(optimizer), made()[0]:
        twin.load_state_dict(optimizer.state_dict())
        assert twin.applied_steps == 2**63 - 1
        assert isinstance(raised(twin.step), ValueError)


def test_a_setting_of_a_mutable_kind_is_read_again() -> None:
    class Changing(int):
        now = 0.5

        def __float__(self) -> float:
            return self.now

    optimizer, _ = made()
    beside = Beside(optimizer)
    decay = optimizer.param_groups[0]["weight_decay"] = Changing(0)
    for decay.now in (0.5, 0.25, 0.0):
        beside.theirs.param_groups[0]["weight_decay"] = decay.now
        beside.step([torch.ones(5)])
    beside.assert_same()
