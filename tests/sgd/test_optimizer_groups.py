"""Parameter groups: settings and schedules of their own, late groups, unknown keys, edits by hand."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from clr_native import CyclicSchedule, FusedCyclicSGD
from helpers import assert_refused, every_parameter, follow, give, gradient_sets, parameters, raised, train

Groups = list[dict[str, Any]]

# One value other than the default for every argument that a group may set.
SETTINGS: dict[str, dict[str, Any]] = {
    "base_lr": {"base_lr": 0.2},
    "max_lr": {"max_lr": 0.7},
    "step_size_up": {"step_size_up": 2},
    "step_size_down": {"step_size_down": 5},
    "mode": {"mode": "triangular2"},
    "gamma": {"mode": "exp_range", "gamma": 0.9},
    "decay_steps": {"mode": "linear_range", "decay_steps": 4},
    "decay_base": {"mode": "exp_range", "gamma": 0.9, "decay_base": True},
    "scale_fn": {"scale_fn": lambda cycle: 1 / cycle},
    "scale_mode": {"scale_fn": lambda step: 1 / (1 + step), "scale_mode": "iterations"},
    "window": {"window": "welch"},
    "cycle_momentum": {"cycle_momentum": False},
    "base_momentum": {"base_momentum": 0.3},
    "max_momentum": {"max_momentum": 0.99},
    "momentum": {"cycle_momentum": False, "momentum": 0.35},
    "schedule": {"schedule": CyclicSchedule(0.3, 0.4, step_size_up=1, window="hann")},
    "dampening": {"dampening": 0.25},
    "weight_decay": {"weight_decay": 0.125},
    "nesterov": {"nesterov": True},
    "maximize": {"maximize": True},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_a_groups_own(name: str) -> None:
    """A group's values are those of an optimizer of its own; the group beside it is not concerned."""
    first, second = parameters([40]), parameters([40])
    both = FusedCyclicSGD([{"params": first}, {"params": second, **SETTINGS[name]}], 0.1, 0.5, step_size_up=3)
    plain = FusedCyclicSGD(parameters([40]), 0.1, 0.5, step_size_up=3)
    arguments = {} if name == "schedule" else {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 3}
    own = FusedCyclicSGD(parameters([40]), **{**arguments, **SETTINGS[name]})
    sets = gradient_sets(first, 12)
    for gradients in sets:
        for optimizer in (both, plain, own):
            give(every_parameter(optimizer), gradients * len(optimizer.param_groups))
            optimizer.step()
        assert both.get_last_lr() == plain.get_last_lr() + own.get_last_lr()
        assert both.get_last_momentum() == plain.get_last_momentum() + own.get_last_momentum()
    assert torch.equal(first[0], every_parameter(plain)[0])
    assert torch.equal(second[0], every_parameter(own)[0])
    assert not torch.equal(first[0], second[0])
    follow(both, 5)


def test_a_groups_schedule_replaces_the_constructors() -> None:
    long = CyclicSchedule(0.25, 1.0, step_size_up=4)
    groups: Groups = [
        {"params": parameters([2])},
        {"params": parameters([2]), "max_lr": 0.75},
        {"params": parameters([2]), "schedule": long},
    ]
    optimizer = FusedCyclicSGD(groups, 0.5, 0.625, step_size_up=1)
    optimizer.seek(1)
    assert optimizer.get_last_lr() == [0.625, 0.75, 0.4375]
    own: dict[str, Any] = {"params": parameters([2]), "base_lr": 0.0, "max_lr": 2.0, "step_size_up": 2}
    of_schedule = FusedCyclicSGD([groups[0], own], schedule=long)
    of_schedule.seek(1)
    assert of_schedule.get_last_lr() == [0.4375, 1.0]


def test_the_callers_dict_is_not_touched() -> None:
    group: dict[str, Any] = {"params": parameters([2]), "base_lr": 0.1, "max_lr": 0.5, "window": "hann", "mine": [1]}
    late = {"params": parameters([2]), "base_lr": 0.1, "max_lr": 0.5}
    before = dict(group), dict(late)
    FusedCyclicSGD([group], step_size_up=3).add_param_group(late)
    assert (group, late) == before


def test_a_late_group_joins_at_the_first_groups_position() -> None:
    early = parameters([20])
    optimizer = FusedCyclicSGD(early, 0.1, 0.5, step_size_up=3, weight_decay=0.01)
    train(optimizer, early, gradient_sets(early), 4)
    late = parameters([30], seed=5)
    optimizer.add_param_group({"params": late, "base_lr": 0.2, "max_lr": 0.3, "nesterov": True})
    group = optimizer.param_groups[1]
    assert (group["applied_steps"], group["weight_decay"]) == (4, 0.01)
    expected = CyclicSchedule(0.2, 0.3, step_size_up=3)(4)
    assert (group["lr"], group["momentum"]) == tuple(expected)
    follow(optimizer, 9)
    assert [g["applied_steps"] for g in optimizer.param_groups] == [13, 13]


def test_a_refused_late_group_leaves_no_trace() -> None:
    early = parameters([20])
    optimizer = FusedCyclicSGD(early, 0.1, 0.5)
    bad: list[dict[str, Any]] = [
        {"params": early},
        {"params": [early[0] * 2]},
        {"params": [torch.zeros(2, dtype=torch.int32)]},
        {"params": parameters([2]), "weight_decay": -1.0},
        {"params": parameters([2]), "scale_fn": [].__getitem__},
    ]
    for group in bad:
        act = partial(optimizer.add_param_group, group)
        assert_refused(act, (ValueError, TypeError, IndexError), None, optimizer)
    follow(optimizer, 3)


A, B, C = parameters([3, 3, 3])
UNFIT: dict[str, list[dict[str, Any]]] = {
    "a parameter twice": [{"params": [A]}, {"params": [B]}, {"params": [C, A]}],
    "names first": [{"params": [("a", A)]}, {"params": [B]}],
    "names later": [{"params": [A]}, {"params": [("b", B)]}],
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("case", UNFIT)
def test_groups_that_do_not_go_together_are_refused_as_by_torch(case: str, late: bool) -> None:
    def made(kind: Any) -> None:
        optimizer = kind(UNFIT[case][:-1] if late else UNFIT[case], lr=0.1)
        if late:
            optimizer.add_param_group(UNFIT[case][-1])

    errors = [raised(partial(made, kind)) for kind in (torch.optim.SGD, FusedCyclicSGD)]
    assert errors[0] is not None
    assert str(errors[0]) == str(errors[1])
    assert type(errors[0]) is type(errors[1])


class Hashed(torch.nn.Parameter):
    """Counts how often any of these is put into a set or looked up."""

    count = 0

    def __hash__(self) -> int:
        Hashed.count += 1
        return id(self)


@pytest.mark.parametrize(("kind", "grows"), [(FusedCyclicSGD, False), (torch.optim.SGD, True)])
def test_the_work_of_constructing_many_groups_grows_with_their_number(kind: Any, grows: bool) -> None:
    """torch's own grows with its square: 20,000 groups take a minute."""

    def hashes(count: int) -> int:
        groups = [{"params": [Hashed(torch.ones(1))]} for _ in range(count)]
        Hashed.count = 0
        kind(groups, lr=0.1)
        return Hashed.count

    assert (hashes(100) > 12 * hashes(10)) is grows


def test_groups_edited_by_hand() -> None:
    """Deleted, reordered, emptied and refilled groups and parameter lists are followed."""
    one, two, three = parameters([20]), parameters([30]), parameters([40])
    groups: Groups = [{"params": one}, {"params": two, "max_lr": 0.7, "step_size_up": 2}]
    optimizer = FusedCyclicSGD(groups, 0.1, 0.5, step_size_up=3)
    follow(optimizer, 2)
    optimizer.param_groups.reverse()
    lr = optimizer.get_last_lr()
    optimizer.step()
    assert optimizer.get_last_lr() != lr
    assert optimizer.cycle == 0
    optimizer.step()
    assert optimizer.cycle == 1  # of the group that is the first now, of 4 steps
    del optimizer.param_groups[0]
    assert optimizer.cycle == 0  # of 6 steps
    optimizer.param_groups[0]["params"] = three
    optimizer.state.clear()
    follow(optimizer, 2)
    optimizer.param_groups.clear()
    optimizer.add_param_group({"params": two, "step_size_up": 1})
    optimizer.state.clear()
    follow(optimizer, 3)
    assert optimizer.cycle == 1  # 3 of 2 steps each
    assert not optimizer.at_cycle_end
