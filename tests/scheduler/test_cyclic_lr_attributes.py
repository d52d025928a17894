"""The public attributes of torch's CyclicLR, beside torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from clr_native import CyclicLR, CyclicSchedule, OneCycleSchedule, RampSchedule, ScheduleSequence
from schedulers import adam, add, advance, assert_same_run, load, rates, refused, sgd, values, weights

BOUNDS: dict[str, Any] = {"base_lr": [0.1, 0.2], "max_lr": [0.5, 0.7]}
MOMENTA: dict[str, Any] = {"base_momentum": [0.25, 0.5], "max_momentum": 0.75}
CASES: dict[str, dict[str, Any]] = {
    "plain": {"base_lr": 0.1, "max_lr": 0.5},
    "lists": {**BOUNDS, **MOMENTA, "step_size_up": 3},
    "triangular2": {
        **BOUNDS,
        "step_size_up": 3,
        "step_size_down": 7,
        "mode": "triangular2",
        "scale_mode": "iterations",
    },
    "exp_range": {**BOUNDS, "mode": "exp_range", "gamma": 0.75, "scale_mode": "cycle"},
    "scale_fn": {**BOUNDS, "scale_fn": lambda x: 0.5 / (1 + x), "scale_mode": "iterations"},
    "without momentum": {**BOUNDS, **MOMENTA, "cycle_momentum": False},
}
MOMENTUM = ("base_momentums", "max_momentums", "use_beta1")
ATTRIBUTES = (
    *("base_lrs", "max_lrs", "total_size", "step_ratio", "mode", "gamma", "scale_mode", "cycle_momentum"),
    *MOMENTUM,
)


@pytest.mark.parametrize("optimizer_of", [sgd, adam])
@pytest.mark.parametrize("name", CASES)
def test_values_and_types_are_torchs(name: str, optimizer_of: Any) -> None:
    ours, theirs = CyclicLR(optimizer_of(2), **CASES[name]), lr_scheduler.CyclicLR(optimizer_of(2), **CASES[name])
    missing = object()
    for attribute in ATTRIBUTES:
        found, wanted = getattr(ours, attribute, missing), getattr(theirs, attribute, missing)
        assert (found, type(found)) == (wanted, type(wanted)), attribute
        assert (found is missing) == (name == "without momentum" and attribute in MOMENTUM)
    for x in (1, 2, 3, 4, 60, 2.0):
        assert ours.scale_fn(x) == pytest.approx(theirs.scale_fn(x), rel=2**-51, abs=0)


def test_no_public_attribute_is_missing() -> None:
    theirs = lr_scheduler.CyclicLR(sgd(), 1, 5)
    ours = CyclicLR(sgd(), 1, 5)
    assert [name for name in {*vars(theirs), *dir(theirs)} if name[0] != "_" and not hasattr(ours, name)] == []


@pytest.mark.parametrize(
    ("mode", "further", "scale_mode", "scales"),
    [
        ("triangular", {}, "cycle", {1: 1.0, 2: 1.0}),
        ("triangular2", {}, "cycle", {1: 1.0, 3: 0.25, 1025: 2.0**-1024, 2000: 0.0}),
        ("exp_range", {"gamma": 0.5}, "iterations", {0: 1.0, 3: 0.125}),
        ("exp_range", {"gamma": 2.0, "decay_base": True, "window": "hann"}, "iterations", {0: 1.0, 3: 8.0}),
        ("exp_cycle", {"gamma": 0.5}, "cycle", {1: 1.0, 3: 0.25}),
        ("linear_range", {"decay_steps": 8}, "iterations", {0: 1.0, 2: 0.75, 9: 0.0}),
    ],
)
def test_scale_fn_is_the_amplitude_of_every_mode(
    mode: str, further: dict[str, Any], scale_mode: str, scales: dict[int, float]
) -> None:
    scheduler = CyclicLR(sgd(2), **BOUNDS, mode=mode, **further)
    assert scheduler.mode == mode
    assert scheduler.scale_mode == scale_mode
    assert {x: scheduler.scale_fn(x) for x in scales} == scales
    for x in (-1, 1.5, float("nan"), *([0] if scale_mode == "cycle" else [])):
        with pytest.raises(ValueError, match=f"x={x} must be a whole number from [01]"):
            scheduler.scale_fn(x)


def test_own_scale_fn_is_given_as_it_is() -> None:
    assert CyclicLR(sgd(), 1, 5, scale_fn=CASES["scale_fn"]["scale_fn"]).scale_fn is CASES["scale_fn"]["scale_fn"]


# --- where there is no such value -----------------------------------------------------------------------------------

ONE_CYCLE = OneCycleSchedule(0.5, 9)
SEQUENCE = ScheduleSequence([(RampSchedule(0, 1, 4), 4), (CyclicSchedule(1, 5), None)])
WITHOUT: list[tuple[dict[str, Any], str, str]] = [
    (
        {**BOUNDS, "step_size_up": [3, 4]},
        "total_size",
        r"it is 6\.0 in parameter group 0 and 8\.0 in 1: read schedules",
    ),
    ({**BOUNDS, "mode": ["triangular", "triangular2"]}, "mode", "it is 'triangular' in parameter group 0 and 'tri"),
    ({**BOUNDS, "mode": ["triangular", "triangular2"]}, "scale_fn", "in parameter group 0 and .* in 1: read schedules"),
    ({**BOUNDS, "cycle_momentum": [True, False]}, "cycle_momentum", "it is True in parameter group 0 and False in 1"),
    ({**BOUNDS, "cycle_momentum": [True, False]}, "base_momentums", r"of parameter group 1 .*: read schedules\[1\]"),
    ({**BOUNDS, "cycle_momentum": [True, False]}, "use_beta1", r"of parameter group 1 .*: read schedules\[1\]"),
    ({"schedule": ONE_CYCLE}, "mode", r"as the OneCycleSchedule of parameter group 0 has none: read schedules\[0\]"),
    ({"schedule": ONE_CYCLE}, "scale_fn", "the OneCycleSchedule of parameter group 0 has none"),
    ({"schedule": SEQUENCE}, "max_lrs", "the ScheduleSequence of parameter group 0 has none"),
    ({"schedule": [CyclicSchedule(1, 5), RampSchedule(0, 1, 4)]}, "max_lrs", "the RampSchedule of parameter group 1"),
    ({"schedule": RampSchedule(0, 1, 4)}, "total_size", "the RampSchedule of parameter group 0 has none"),
]


@pytest.mark.parametrize(("arguments", "name", "message"), WITHOUT)
def test_what_the_schedules_do_not_have_names_them(arguments: dict[str, Any], name: str, message: str) -> None:
    scheduler = CyclicLR(sgd(2), **arguments)
    assert not hasattr(scheduler, name)
    with pytest.raises(AttributeError, match=f"^CyclicLR has no (single )?{name}.*{message}"):
        getattr(scheduler, name)


def test_what_other_schedules_have_is_there() -> None:
    scheduler = CyclicLR(adam(), schedule=ONE_CYCLE)
    assert (scheduler.max_lrs, scheduler.cycle_momentum, scheduler.use_beta1) == ([0.5], True, True)
    assert (scheduler.base_momentums, scheduler.max_momentums) == ([0.85], [0.95])


def test_they_follow_the_schedules() -> None:
    scheduler = CyclicLR(sgd(), 1, 5, mode="triangular2")
    scheduler.load_state_dict(CyclicLR(sgd(), 2, 9, mode="exp_range").state_dict())
    assert (scheduler.base_lrs, scheduler.max_lrs, scheduler.mode) == ([2.0], [9.0], "exp_range")
    add(scheduler)
    advance(scheduler)
    assert scheduler.max_lrs == [9.0, 9.0]


@pytest.mark.parametrize("name", ["gamma", "mode", "max_lrs", "max_momentums"])
def test_a_subclass_does_not_set_them_in_vain(name: str) -> None:
    class Mine(CyclicLR):
        def __init__(self) -> None:
            setattr(self, name, 0.5)
            super().__init__(sgd(), 1, 5)

    with pytest.raises(AttributeError, match=f"{name} is what the schedules say: set schedules instead"):
        Mine()


# --- set from outside -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mode", "gamma", "total_size", "step_ratio", "scale_fn", "scale_mode", "use_beta1"])
def test_they_cannot_be_set(name: str) -> None:
    scheduler = CyclicLR(sgd(), 1, 5)
    with pytest.raises(AttributeError, match=f"{name} is what the schedules say: set schedules instead"):
        setattr(scheduler, name, getattr(scheduler, name))


@pytest.mark.parametrize("name", ["base_lrs", "max_lrs", "base_momentums", "max_momentums"])
@pytest.mark.parametrize("optimizer_of", [sgd, adam])
def test_bounds_may_be_set_as_torchs(name: str, optimizer_of: Any) -> None:
    """As warm-up wrappers set base_lrs, and some scripts max_lrs at the end of a cycle."""
    arguments: dict[str, Any] = {"base_lr": [1, 2], "max_lr": [5, 10], "base_momentum": 0.25, "max_momentum": 0.75}
    kinds: tuple[Any, Any] = (CyclicLR, lr_scheduler.CyclicLR)
    ours, theirs = (kind(optimizer_of(2), **arguments, step_size_up=4) for kind in kinds)
    assert_same_run(ours, theirs, 5)
    assert ours.schedules[0].max_lr == 5.0
    for scheduler in (ours, theirs):
        setattr(scheduler, name, [each * 1.25 for each in getattr(scheduler, name)])
    for _ in range(7):
        assert values(ours) == values(theirs)
        advance(ours, theirs)
        assert ours.get_last_lr() == rates(ours)


def test_bounds_that_were_set_are_saved() -> None:
    scheduler, other = CyclicLR(sgd(), 1, 5, step_size_up=4), CyclicLR(sgd(), 1, 5)
    advance(scheduler, steps=3)
    scheduler.max_lrs = [9]
    assert rates(scheduler) == scheduler.get_last_lr() == [4.0]
    load(other, scheduler)
    for lr in (4.0, 9.0, 7.0):
        assert (rates(other), rates(scheduler)) == ([lr], [lr])
        advance(scheduler, other)
    add(scheduler)
    advance(scheduler)
    assert scheduler.max_lrs == [9.0, 9.0]


def test_a_late_group_joins_what_was_set() -> None:
    optimizer = sgd()
    scheduler = CyclicLR(optimizer, 1, 5, step_size_up=4)
    optimizer.add_param_group({**weights(1)[0], "schedule": RampSchedule(5, 6, 4)})
    add(optimizer)
    scheduler.max_lrs = [lr + 4 for lr in scheduler.max_lrs]
    assert "schedule" in optimizer.param_groups[1]
    advance(scheduler)
    assert rates(optimizer) == [3.0, 5.25, 3.0]


@pytest.mark.parametrize(
    ("arguments", "name", "value", "error", "message"),
    [
        (
            {"schedule": ONE_CYCLE},
            "base_lrs",
            [1.0, 2.0],
            AttributeError,
            "base_lrs is what the schedules say: set sched",
        ),
        (BOUNDS, "base_lrs", [1.0], ValueError, "base_lrs with 1 entries must have one for each of the 2 groups"),
        (BOUNDS, "base_lrs", [0.1, 9.0], ValueError, r"parameter group 1: base_lr=9\.0 must not be above max_lr=0\.7"),
        (BOUNDS, "max_lrs", [0.5, "1"], TypeError, "parameter group 1: max_lr='1' must be a number"),
        (BOUNDS, "max_lrs", 0.5, TypeError, r"max_lrs=0\.5 must be a list, one entry for each parameter group"),
        ({**BOUNDS, "cycle_momentum": False}, "max_momentums", [1, 1], AttributeError, "CyclicLR has no max_momentums"),
    ],
)
def test_bounds_that_do_not_fit_change_nothing(
    arguments: dict[str, Any], name: str, value: Any, error: type[Exception], message: str
) -> None:
    scheduler = CyclicLR(sgd(2), **arguments)
    with refused(message, scheduler, error=error):
        setattr(scheduler, name, value)


def test_nothing_is_kept_in_groups() -> None:
    """torch keeps base_momentum and max_momentum there, which its class no longer reads and OneCycleLR writes too."""
    optimizer = sgd()
    CyclicLR(optimizer, 1, 5)
    assert optimizer.param_groups[0].keys() == sgd().param_groups[0].keys() | {"initial_lr"}
    assert isinstance(optimizer, torch.optim.SGD)
