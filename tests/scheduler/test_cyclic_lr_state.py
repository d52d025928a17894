"""Saving and loading CyclicLR: its own states, torch's, pickles and copies."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import Optimizer, lr_scheduler

from clr_native import CyclicLR, CyclicSchedule, OneCycleSchedule, RampSchedule, ScheduleSequence
from helpers import picture
from schedulers import adam, advance, sgd, values

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
    optimizer, resumed = optimizer_of(2), optimizer_of(2)
    scheduler = CyclicLR(optimizer, **arguments)
    advance(scheduler, optimizer, 5)
    state = through_torch_save(scheduler.state_dict())
    other = of_other_arguments(resumed, arguments)
    other.load_state_dict(state)
    assert other.schedules == scheduler.schedules
    assert other._step_count == scheduler._step_count
    for _ in range(20):
        assert values(resumed) == values(optimizer)
        assert other.get_last_lr() == scheduler.get_last_lr()
        advance(scheduler, optimizer)
        advance(other, resumed)


def test_load_state_dict_leaves_the_callers_dict_alone_and_works_twice() -> None:
    optimizer = sgd(2)
    scheduler = CyclicLR(optimizer, **LISTS)
    advance(scheduler, optimizer, 3)
    states = [scheduler.state_dict()]
    theirs = sgd(2)
    reference = lr_scheduler.CyclicLR(theirs, **LISTS)
    advance(reference, theirs, 3)
    states.append(reference.state_dict())
    for state in states:
        before = copy.deepcopy(state)
        for _ in range(2):
            fresh = sgd(2)
            CyclicLR(fresh, 0.5, 0.75).load_state_dict(state)
            assert values(fresh) == values(optimizer)
        assert state == before


Step = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize("optimizer_of", [sgd, adam])
@pytest.mark.parametrize(
    "order",
    [
        ["optimizer state", "construct", "scheduler state"],
        ["construct", "optimizer state", "scheduler state"],
        ["construct", "scheduler state", "optimizer state"],
    ],
)
def test_any_order_of_constructing_and_loading(order: list[str], optimizer_of: Callable[[int], Optimizer]) -> None:
    saved_optimizer = optimizer_of(2)
    saved = CyclicLR(saved_optimizer, **LISTS, step_size_up=4)
    advance(saved, saved_optimizer, 6)
    states = copy.deepcopy((saved_optimizer.state_dict(), saved.state_dict()))
    optimizer = optimizer_of(2)
    scheduler: CyclicLR | None = None
    for what in order:
        if what == "construct":
            scheduler = CyclicLR(optimizer, **LISTS, step_size_up=4)
        elif what == "optimizer state":
            optimizer.load_state_dict(states[0])
        else:
            assert scheduler is not None
            scheduler.load_state_dict(states[1])
    assert scheduler is not None
    for _ in range(5):
        assert values(optimizer) == values(saved_optimizer)
        advance(saved, saved_optimizer)
        advance(scheduler, optimizer)


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
    advance(reference, theirs, 5)
    scheduler = of_other_arguments(ours, arguments)
    scheduler.load_state_dict(through_torch_save(reference.state_dict()))
    assert scheduler.last_epoch == 5
    assert scheduler.schedules == CyclicLR(optimizer_of(2), **arguments).schedules
    for step in range(5, 40):
        assert close(ours, theirs, arguments, step)
        advance(reference, theirs)
        advance(scheduler, ours)


@pytest.mark.parametrize("optimizer_of", [sgd, adam])
@pytest.mark.parametrize("name", SHARED)
def test_torch_loads_ours_where_it_has_the_schedule(name: str, optimizer_of: Callable[[int], Optimizer]) -> None:
    arguments = SHARED[name]
    ours, theirs = optimizer_of(2), optimizer_of(2)
    scheduler = CyclicLR(ours, **arguments)
    advance(scheduler, ours, 5)
    state = through_torch_save(scheduler.state_dict())
    momentum = arguments.get("cycle_momentum", True)
    function = {name: arguments[name] for name in ("scale_fn",) if name in arguments}
    reference = lr_scheduler.CyclicLR(theirs, 0.125, 0.25, step_size_up=1, cycle_momentum=momentum, **function)
    reference.load_state_dict(state)
    assert reference.get_last_lr() == scheduler.get_last_lr()
    for step in range(6, 40):
        advance(reference, theirs)
        advance(scheduler, ours)
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
    optimizer = sgd()
    scheduler = CyclicLR(optimizer, 1, 5, step_size_up=2, scale_fn=FUNCTIONS[name], cycle_momentum=False)
    advance(scheduler, optimizer, 2)
    state = through_torch_save(scheduler.state_dict())
    resumed = sgd()
    other = CyclicLR(resumed, 1, 2, scale_fn=FUNCTIONS[name])
    other.load_state_dict(state)
    assert values(resumed) == values(optimizer)
    without = sgd()
    plain = CyclicLR(without, 1, 2)
    before = picture(without)
    with pytest.raises(ValueError, match=r"parameter group 0: scale_fn=None: .* pass the function again"):
        plain.load_state_dict(state)
    assert picture(without) == before
    assert plain.last_epoch == 0


def test_torchs_saved_attributes_of_a_scale_fn() -> None:
    optimizer = sgd()
    reference = lr_scheduler.CyclicLR(optimizer, 1, 5, scale_fn=Halving(0.5))
    state = reference.state_dict()
    same = CyclicLR(sgd(), 1, 5, scale_fn=Halving(0.5))
    same.load_state_dict(state)
    for other, message in ((None, "scale_fn=None"), (Halving(0.25), r"the attributes .* {'factor': 0.5}")):
        with pytest.raises(ValueError, match=message):
            CyclicLR(sgd(), 1, 5, scale_fn=other).load_state_dict(state)


# --- what does not fit ----------------------------------------------------------------------------------------------


def torch_state(**changes: Any) -> dict[str, Any]:
    return {**lr_scheduler.CyclicLR(sgd(), 1, 5).state_dict(), **changes}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another scheduler's": (lr_scheduler.StepLR(sgd(), 3).state_dict(), "neither schedules nor torch's total_size"),
    "empty": ({}, "no 'last_epoch'"),
    "of other groups": (CyclicLR(sgd(3), 1, 5).state_dict(), "of 3 parameter groups, the optimizer has 1"),
    "sizes that are not whole": (lr_scheduler.CyclicLR(sgd(), 1, 5, 2.5).state_dict(), r"total_size=5\.0 and step_r"),  # type: ignore[arg-type]  # what torch takes
    "a cycle that is not whole": (torch_state(total_size=4000.5), r"total_size=4000\.5"),
    "torch's bounds the wrong way": (
        lr_scheduler.CyclicLR(sgd(), 5, 1).state_dict(),
        r"base_lr=5\.0 must not be above",
    ),
    "torch's momentum above 1": (torch_state(max_momentums=[1.5]), r"parameter group 0: max_momentum=1\.5 must be"),
    "torch's in part": (
        {name: value for name, value in torch_state().items() if name != "mode"},
        "state_dict is not complete: KeyError",
    ),
    "a position that is none": (torch_state(last_epoch=-7), "step=-7"),
    "a position of another type": (torch_state(last_epoch=1.5), r"step=1\.5 must be an int"),
    "a schedule that is none": ({**CyclicLR(sgd(), 1, 5).state_dict(), "schedules": [3]}, "schedule=3"),
    "a schedule of unknown kind": (
        {**CyclicLR(sgd(), 1, 5).state_dict(), "schedules": [{"kind": "cosine"}]},
        "parameter group 0: kind='cosine'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_state_that_does_not_fit_changes_nothing(name: str) -> None:
    state, message = REFUSED[name]
    optimizer = sgd()
    scheduler = CyclicLR(optimizer, 1, 5, step_size_up=4)
    advance(scheduler, optimizer, 3)
    before = picture(optimizer), scheduler.state_dict()
    with pytest.raises((ValueError, TypeError), match=message):
        scheduler.load_state_dict(state)
    assert (picture(optimizer), scheduler.state_dict()) == before


def test_a_value_that_cannot_be_written_stops_loading() -> None:
    state = CyclicLR(sgd(), 1, 5, mode="exp_range", gamma=2.0, step_size_up=4, cycle_momentum=False).state_dict()
    state["last_epoch"] = 5001
    optimizer = sgd()
    scheduler = CyclicLR(optimizer, 1, 5, step_size_up=4)
    before = picture(optimizer), scheduler.state_dict()
    with pytest.raises(ValueError, match=r"parameter group 0: lr=\w+ at last_epoch=5001 must be finite"):
        scheduler.load_state_dict(state)
    assert (picture(optimizer), scheduler.state_dict()) == before


# --- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
@pytest.mark.parametrize("name", ["triangular", *OWN])
def test_pickle_and_deepcopy_go_on_alone(name: str, copied: Callable[[Any], Any]) -> None:
    optimizer = sgd(2)
    scheduler = CyclicLR(optimizer, **(SHARED | OWN)[name])
    advance(scheduler, optimizer, 3)
    other_optimizer, other = copied((optimizer, scheduler))
    assert other.optimizer is other_optimizer
    assert values(other_optimizer) == values(optimizer)
    assert other.get_last_lr() == scheduler.get_last_lr()
    advance(other, other_optimizer, 2)
    assert scheduler.last_epoch == 3
    advance(scheduler, optimizer, 2)
    assert values(other_optimizer) == values(optimizer)
    assert [a is b for a, b in zip(other.schedules, other.schedules[1:], strict=False)] == [
        a is b for a, b in zip(scheduler.schedules, scheduler.schedules[1:], strict=False)
    ]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_made_before_a_late_group_has_joined(copied: Callable[[Any], Any]) -> None:
    optimizer = sgd(2)
    scheduler = CyclicLR(optimizer, [1, 2], [5, 10])
    advance(scheduler, optimizer, 2)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))], "base_lr": 3, "max_lr": 9})
    for other_optimizer, other in (copied((optimizer, scheduler)), (optimizer, scheduler)):
        assert len(other.get_last_lr()) == 2
        advance(other, other_optimizer)
        assert other.schedules[2] == CyclicSchedule(3, 9)
        assert other.get_last_lr() == [group["lr"] for group in other_optimizer.param_groups]


def test_a_checkpoint_file(tmp_path: Path) -> None:
    optimizer = adam(2)
    scheduler = CyclicLR(optimizer, **LISTS)
    advance(scheduler, optimizer, 3)
    torch.save({"o": optimizer.state_dict(), "s": scheduler.state_dict()}, tmp_path / "checkpoint.pt")
    loaded = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    resumed = adam(2)
    other = CyclicLR(resumed, **LISTS)
    resumed.load_state_dict(loaded["o"])
    other.load_state_dict(loaded["s"])
    advance(scheduler, optimizer)
    advance(other, resumed)
    assert values(resumed) == values(optimizer)
