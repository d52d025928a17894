"""Saving and loading CyclicLR: its own states, torch's, pickles and copies."""

from __future__ import annotations

import copy
import functools
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import Optimizer, lr_scheduler

from clr_native import CyclicLR, CyclicSchedule, OneCycleSchedule, RampSchedule, ScheduleSequence
from schedulers import COPIES, adam, add, advance, assert_same_run, load, rates, refused, sgd, values

Arguments = dict[str, Any]

LISTS: Arguments = {"base_lr": [1, 2], "max_lr": [5, 10], "base_momentum": [0.25, 0.5], "max_momentum": [0.75, 1.0]}
# What torch's class has too.
SHARED: dict[str, Arguments] = {
    "triangular": {**LISTS, "step_size_up": 4},
    "triangular2": {**LISTS, "step_size_up": 3, "step_size_down": 7, "mode": "triangular2"},
    "exp_range": {**LISTS, "step_size_up": 3, "mode": "exp_range", "gamma": 0.75},
    "without momentum": {"base_lr": 1, "max_lr": 5, "step_size_up": 4, "cycle_momentum": False},
    "scale_fn": {**LISTS, "step_size_up": 4, "scale_fn": lambda i: 1 / (1 + i), "scale_mode": "iterations"},
    "scale_fn of the cycle": {**LISTS, "step_size_up": 2, "scale_fn": lambda cycle: 1 / cycle},
}
# What it has not.
OWN: dict[str, Arguments] = {
    "window": {"base_lr": 1, "max_lr": 5, "window": "hann"},
    "one window in some group": {"base_lr": 1, "max_lr": 5, "window": ["triangular", "welch"]},
    "mode": {"base_lr": 1, "max_lr": 5, "mode": "exp_cycle", "gamma": 0.5},
    "decay_base": {"base_lr": 1, "max_lr": 5, "mode": "exp_range", "gamma": 0.5, "decay_base": True},
    "sizes per group": {"base_lr": 1, "max_lr": 5, "step_size_up": [3, 4]},
    "gamma per group": {"base_lr": 1, "max_lr": 5, "mode": "exp_range", "gamma": [0.5, 0.25]},
    "one cycle": {"schedule": OneCycleSchedule(0.5, 100)},
    "a sequence": {"schedule": ScheduleSequence([(RampSchedule(0, 1, 4), 4), (CyclicSchedule(1, 5), None)])},
    "mixed": {"schedule": [CyclicSchedule(1, 5, step_size_up=4), OneCycleSchedule(0.5, 100)]},
}


def through_torch_save(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def of_other_arguments(optimizer: Optimizer, arguments: Arguments) -> CyclicLR:
    """As after a change of the script: only a scale_fn, which is not saved, is the same."""
    return CyclicLR(optimizer, 0.125, 0.25, step_size_up=1, scale_fn=arguments.get("scale_fn"))


@pytest.mark.parametrize("optimizer_of", [sgd, adam])
@pytest.mark.parametrize("name", SHARED | OWN)
def test_state_is_plain_data_and_wins_over_the_constructor(name: str, optimizer_of: Callable[[int], Optimizer]) -> None:
    arguments = (SHARED | OWN)[name]
    scheduler = CyclicLR(optimizer_of(2), **arguments)
    advance(scheduler, steps=5)
    other = of_other_arguments(optimizer_of(2), arguments)
    other.load_state_dict(through_torch_save(scheduler.state_dict()))
    assert other.schedules == scheduler.schedules
    assert other._step_count == scheduler._step_count
    assert_same_run(other, scheduler, 20)


def test_load_state_dict_leaves_the_callers_dict_alone_and_works_twice() -> None:
    for kind in (CyclicLR, lr_scheduler.CyclicLR):
        scheduler: Any = kind(sgd(2), **LISTS, step_size_up=4)
        advance(scheduler, steps=3)
        state = scheduler.state_dict()
        before = copy.deepcopy(state)
        for _ in range(2):
            fresh = CyclicLR(sgd(2), 0.5, 0.75)
            fresh.load_state_dict(state)
            assert values(fresh) == values(scheduler)
        assert state == before


@pytest.mark.parametrize("optimizer_of", [sgd, adam])
@pytest.mark.parametrize("order", ["optimizer first", "scheduler first", "optimizer, then construct"])
def test_any_order_of_constructing_and_loading(order: str, optimizer_of: Callable[[int], Optimizer]) -> None:
    scheduler, resumed = CyclicLR(optimizer_of(2), **LISTS, step_size_up=4), optimizer_of(2)
    advance(scheduler, steps=6)
    if order == "optimizer, then construct":
        resumed.load_state_dict(copy.deepcopy(scheduler.optimizer.state_dict()))
        other = CyclicLR(resumed, **LISTS, step_size_up=4)
        other.load_state_dict(scheduler.state_dict())
    else:
        other = CyclicLR(resumed, **LISTS, step_size_up=4)
        load(other, scheduler, optimizer_last=order == "scheduler first")
    assert_same_run(other, scheduler, 5)


# --- torch's --------------------------------------------------------------------------------------------------------


def close(ours: Optimizer, theirs: Optimizer, arguments: Arguments, step: int) -> bool:
    """Within what torch's phase is off by, of the largest amplitudes here: 8 of rates, 1/2 of momenta."""
    up = arguments["step_size_up"]
    down = arguments.get("step_size_down") or up
    relative = 2**-52 * (step / (up + down) + 4) * (up + down) / min(up, down)
    return all(
        abs(lr - other_lr) <= 8 * relative + 2 * 2**-49 and abs(momentum - other_momentum) <= relative / 2 + 2 * 2**-53
        for (lr, momentum), (other_lr, other_momentum) in zip(values(ours), values(theirs), strict=True)
    )


@pytest.mark.parametrize("optimizer_of", [sgd, adam])
@pytest.mark.parametrize("name", SHARED)
def test_torchs_state_loads(name: str, optimizer_of: Callable[[int], Optimizer]) -> None:
    arguments = SHARED[name]
    theirs, ours = optimizer_of(2), optimizer_of(2)
    reference = lr_scheduler.CyclicLR(theirs, **arguments)
    advance(reference, steps=5)
    scheduler = of_other_arguments(ours, arguments)
    scheduler.load_state_dict(through_torch_save(reference.state_dict()))
    assert scheduler.last_epoch == 5
    assert scheduler.schedules == CyclicLR(optimizer_of(2), **arguments).schedules
    for step in range(5, 40):
        assert close(ours, theirs, arguments, step)
        advance(reference, scheduler)


@pytest.mark.parametrize("optimizer_of", [sgd, adam])
@pytest.mark.parametrize("name", SHARED)
def test_torch_loads_ours_where_it_has_the_schedule(name: str, optimizer_of: Callable[[int], Optimizer]) -> None:
    arguments = SHARED[name]
    ours, theirs = optimizer_of(2), optimizer_of(2)
    scheduler = CyclicLR(ours, **arguments)
    advance(scheduler, steps=5)
    state = through_torch_save(scheduler.state_dict())
    momentum = arguments.get("cycle_momentum", True)
    function = {name: arguments[name] for name in ("scale_fn",) if name in arguments}
    reference = lr_scheduler.CyclicLR(theirs, 0.125, 0.25, step_size_up=1, cycle_momentum=momentum, **function)
    reference.load_state_dict(state)
    assert reference.get_last_lr() == scheduler.get_last_lr()
    for step in range(6, 40):
        advance(reference, scheduler)
        assert close(ours, theirs, arguments, step)


@pytest.mark.parametrize("name", OWN)
def test_torch_refuses_what_it_would_misread(name: str) -> None:
    state = CyclicLR(sgd(2), **OWN[name]).state_dict()
    with pytest.raises(KeyError):
        lr_scheduler.CyclicLR(sgd(2), 1, 5).load_state_dict(state)


def test_torch_refuses_a_state_whose_function_it_has_not() -> None:
    state = CyclicLR(sgd(2), **SHARED["scale_fn"]).state_dict()
    with pytest.raises(AttributeError):
        lr_scheduler.CyclicLR(sgd(2), 1, 5).load_state_dict(state)


# --- scale_fn -------------------------------------------------------------------------------------------------------


class Halving:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, cycle: float) -> float:
        return float(self.factor**cycle)


def scaled(factor: float, cycle: int) -> float:
    return factor**cycle


FUNCTIONS: dict[str, Callable[[int], float]] = {
    "lambda": lambda cycle: 0.5**cycle,
    "partial": functools.partial(scaled, 0.5),
    "object": Halving(0.5),
    "builtin": (2.0).__rpow__,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_scale_fn_of_any_kind_is_not_saved_and_not_lost(name: str) -> None:
    scheduler = CyclicLR(sgd(), 1, 5, step_size_up=2, scale_fn=FUNCTIONS[name], cycle_momentum=False)
    advance(scheduler, steps=2)
    state = through_torch_save(scheduler.state_dict())
    other = CyclicLR(sgd(), 1, 2, scale_fn=FUNCTIONS[name])
    other.load_state_dict(state)
    assert values(other) == values(scheduler)
    plain = CyclicLR(sgd(), 1, 2)
    with refused(r"parameter group 0: scale_fn=None: .* pass the function again", plain):
        plain.load_state_dict(state)


def test_torchs_saved_attributes_of_a_scale_fn() -> None:
    state = lr_scheduler.CyclicLR(sgd(), 1, 5, scale_fn=Halving(0.5)).state_dict()
    CyclicLR(sgd(), 1, 5, scale_fn=Halving(0.5)).load_state_dict(state)
    for other, message in ((None, "scale_fn=None"), (Halving(0.25), r"the attributes .* {'factor': 0.5}")):
        with pytest.raises(ValueError, match=message):
            CyclicLR(sgd(), 1, 5, scale_fn=other).load_state_dict(state)


# --- what does not fit ----------------------------------------------------------------------------------------------


def ours_with(**changes: Any) -> dict[str, Any]:
    return {**CyclicLR(sgd(), 1, 5).state_dict(), **changes}


def torch_state(**changes: Any) -> dict[str, Any]:
    return {**lr_scheduler.CyclicLR(sgd(), 1, 5).state_dict(), **changes}


# With it values grow until no float can hold them.
GROWING = CyclicLR(sgd(), 1, 5, mode="exp_range", gamma=2.0, step_size_up=4, cycle_momentum=False).state_dict()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another scheduler's": (lr_scheduler.StepLR(sgd(), 3).state_dict(), "neither schedules nor torch's total_size"),
    "empty": ({}, "no 'last_epoch'"),
    "of other groups": (CyclicLR(sgd(3), 1, 5).state_dict(), "of 3 parameter groups, the optimizer has 1"),
    "sizes that are not whole": (lr_scheduler.CyclicLR(sgd(), 1, 5, 2.5).state_dict(), r"total_size=5\.0 and step_r"),  # type: ignore[arg-type]  # what torch takes
    "a cycle that is not whole": (torch_state(total_size=4000.5), r"total_size=4000\.5"),
    "torch's bounds the wrong way": (torch_state(base_lrs=[9.0]), r"base_lr=9\.0 must not be above"),
    "torch's momentum above 1": (torch_state(max_momentums=[1.5]), r"parameter group 0: max_momentum=1\.5 must be"),
    "torch's in part": (
        {name: value for name, value in torch_state().items() if name != "mode"},
        "state_dict is not complete: KeyError",
    ),
    "a position that is none": (torch_state(last_epoch=-7), "step=-7"),
    "a position of another type": (torch_state(last_epoch=1.5), r"step=1\.5 must be an int"),
    "a schedule that is none": (ours_with(schedules=[3]), "schedule=3"),
    "a schedule of unknown kind": (ours_with(schedules=[{"kind": "cosine"}]), "parameter group 0: kind='cosine'"),
    "a value that cannot be written": (
        {**GROWING, "last_epoch": 5001},
        r"parameter group 0: lr=\w+ at last_epoch=5001 must be finite",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_state_that_does_not_fit_changes_nothing(name: str) -> None:
    state, message = REFUSED[name]
    scheduler = CyclicLR(sgd(), 1, 5, step_size_up=4)
    advance(scheduler, steps=3)
    with refused(message, scheduler):
        scheduler.load_state_dict(state)


# --- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("name", ["triangular", *OWN])
def test_pickle_and_deepcopy_go_on_alone(name: str, copied: Callable[[Any], Any]) -> None:
    scheduler = CyclicLR(sgd(2), **(SHARED | OWN)[name])
    advance(scheduler, steps=3)
    other_optimizer, other = copied((scheduler.optimizer, scheduler))
    assert other.optimizer is other_optimizer
    assert_same_run(other, scheduler, 2)
    advance(other)
    assert scheduler.last_epoch == 5
    assert [a is b for a, b in zip(other.schedules, other.schedules[1:], strict=False)] == [
        a is b for a, b in zip(scheduler.schedules, scheduler.schedules[1:], strict=False)
    ]


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_made_before_a_late_group_has_joined(copied: Callable[[Any], Any]) -> None:
    scheduler = CyclicLR(sgd(2), [1, 2], [5, 10])
    advance(scheduler, steps=2)
    add(scheduler, base_lr=3, max_lr=9)
    for each in (copied(scheduler), scheduler):
        assert len(each.get_last_lr()) == 2
        advance(each)
        assert each.schedules[2] == CyclicSchedule(3, 9)
        assert each.get_last_lr() == rates(each)
