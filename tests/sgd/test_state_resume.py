"""Going on elsewhere: in a new process, as a deep copy, through pickle, from plain torch.optim.SGD."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD

from clr_native import FusedCyclicSGD
from helpers import (
    COPIES,
    SETTINGS,
    assert_goes_on_alike,
    assert_same_state,
    assert_same_training,
    clones,
    every_parameter,
    follow,
    go_on,
    halving,
    output_of,
    parameters,
    picture,
    python_process,
    through_a_file,
)

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def fresh() -> FusedCyclicSGD:
    """Three groups of all types, one with a scale_fn of this module."""
    groups: list[dict[str, Any]] = [
        {"params": [parameters([(7, 5)], dtype)[0] for dtype in DTYPES], "nesterov": True},
        {"params": parameters([(3, 2, 2, 2)]), "mode": "exp_range", "gamma": 0.9, "weight_decay": 0.01},
        {"params": parameters([9]), "scale_fn": halving, "cycle_momentum": False, "momentum": 0.7},
    ]
    groups[1]["params"][0].data = groups[1]["params"][0].detach().contiguous(memory_format=torch.channels_last)
    return FusedCyclicSGD(groups, 0.1, 0.5, step_size_up=3)


def trained() -> FusedCyclicSGD:
    optimizer = fresh()
    go_on(optimizer, 5)
    return optimizer


def continue_from(path: str) -> None:
    """What the new process does: load, go on, write."""
    optimizer = from_content(path)
    go_on(optimizer, 6, seed=4)
    torch.save(content(optimizer), path + ".after")


def content(optimizer: FusedCyclicSGD) -> dict[str, Any]:
    return {"weights": [p.detach() for p in every_parameter(optimizer)], "optimizer": optimizer.state_dict()}


def from_content(path: str) -> FusedCyclicSGD:
    optimizer = fresh()
    checkpoint = torch.load(path, weights_only=True)
    for parameter, saved in zip(every_parameter(optimizer), checkpoint["weights"], strict=True):
        parameter.data.copy_(saved)
    optimizer.load_state_dict(checkpoint["optimizer"])
    return optimizer


@pytest.mark.slow
def test_continues_bit_for_bit_in_a_new_process(tmp_path: Path) -> None:
    optimizer = trained()
    path = tmp_path / "checkpoint.pt"
    torch.save(content(optimizer), path)
    output_of(python_process(f"import test_state_resume as t; t.continue_from({str(path)!r})"))
    go_on(optimizer, 6, seed=4)
    assert_same_state(from_content(f"{path}.after"), optimizer)


WAYS: dict[str, Callable[[FusedCyclicSGD], FusedCyclicSGD]] = {
    **COPIES,
    "torch.save": lambda optimizer: through_a_file(optimizer, weights_only=False),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [fresh, trained])
def test_a_copy_goes_on_bit_for_bit(make: Callable[[], FusedCyclicSGD], way: str) -> None:
    optimizer = make()
    other = WAYS[way](optimizer)
    assert_same_state(optimizer, other)
    before = picture(optimizer)
    go_on(other, 6, seed=4)
    after = picture(optimizer)
    assert {**after, "gradients": 0, "gradient versions": 0} == {**before, "gradients": 0, "gradient versions": 0}
    go_on(optimizer, 6, seed=4)
    assert_same_state(optimizer, other)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_keeps_what_was_written_by_hand(way: str) -> None:
    optimizer = trained()
    optimizer.param_groups[0]["lr"] = 0.01
    optimizer.param_groups[1]["momentum"] = 0.25
    other = WAYS[way](optimizer)
    assert_same_state(optimizer, other)
    assert_goes_on_alike(optimizer, other, 2)
    assert [g["applied_steps"] for g in other.param_groups] == [6, 6, 7]


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_takes_new_groups_and_state_dicts(way: str) -> None:
    """The constructor's arguments are still known."""
    both = [trained(), WAYS[way](trained())]
    for optimizer in both:
        optimizer.add_param_group({"params": parameters([4]), "max_lr": 0.9})
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        go_on(optimizer, 6, seed=4)
    assert_same_training(*both)


def test_model_and_optimizer_copied_together_stay_together() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = FusedCyclicSGD(model.parameters(), 0.1, 0.5)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    twin, other = copy.deepcopy((model, optimizer))
    assert every_parameter(other)[0] is twin.weight
    for network, each in ((model, optimizer), (twin, other)):
        each.zero_grad()
        network(torch.ones(1, 3)).sum().backward()
        each.step()
    assert torch.equal(model.weight, twin.weight)


OPTIONS: list[dict[str, Any]] = [
    {"momentum": 0.8},
    {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    {"momentum": 0.8, "dampening": 0.5, "maximize": True},
    {"momentum": 0.0},
    {"momentum": 0.8, "foreach": True},
    {"momentum": 0.8, "fused": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_checkpoint_of_plain_sgd_continues_as_torch(options: dict[str, Any]) -> None:
    """Buffers and settings are the checkpoint's; the schedule and its position stay, since it has none."""
    twins = parameters([5, (4, 3)])
    theirs = SGD(twins, lr=0.3, **options)
    go_on(theirs, 4)
    over = clones(twins)
    optimizer = FusedCyclicSGD(over, 0.1, 0.5, step_size_up=3, cycle_momentum=False, momentum=0.1)
    for _ in range(2):
        optimizer.step()  # no gradients
    state = theirs.state_dict()
    before = copy.deepcopy(state["param_groups"])
    optimizer.load_state_dict(state)
    assert state["param_groups"] == before
    assert optimizer.applied_steps == 2
    assert not {"foreach", "fused", "differentiable"} & optimizer.param_groups[0].keys()
    for p, q in zip(over, twins, strict=True):
        if options["momentum"]:
            assert torch.equal(optimizer.state[p]["momentum_buffer"], theirs.state[q]["momentum_buffer"])
    group = optimizer.param_groups[0]
    assert {name: group[name] for name in SETTINGS[1:]} == {name: before[0][name] for name in SETTINGS[1:]}
    follow(optimizer, 7)


def test_a_checkpoint_of_plain_sgd_under_cycling_momentum() -> None:
    """The cycle goes on: the checkpoint's momentum is a number of the past."""
    twins = parameters([5])
    theirs = SGD(twins, lr=0.3, momentum=0.8)
    go_on(theirs, 4)
    optimizer = FusedCyclicSGD(clones(twins), 0.1, 0.5, step_size_up=3)
    optimizer.load_state_dict(theirs.state_dict())
    assert_same_training(optimizer, theirs)
    assert optimizer.get_last_momentum() == [0.9]
    follow(optimizer, 7)
    assert optimizer.applied_steps == 7


def test_our_checkpoint_loads_into_plain_sgd() -> None:
    optimizer = FusedCyclicSGD(parameters([5]), 0.1, 0.5, step_size_up=3)
    go_on(optimizer, 4)
    theirs = SGD(clones(every_parameter(optimizer)), lr=9.0)
    theirs.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch keeps the caller's tensors
    assert theirs.param_groups[0]["lr"] == optimizer.get_last_lr()[0]
    for each in (optimizer, theirs):
        go_on(each)
    assert_same_training(optimizer, theirs)
