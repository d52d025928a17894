"""torch's schedulers over the optimizer: with lr= to SGD's bits; with bounds those that compute lr anew drive it."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from torch import Tensor
from torch.optim import SGD, Optimizer, lr_scheduler
from torch.optim.swa_utils import SWALR

from clr_native import FusedCyclicSGD
from helpers import (
    COPIES,
    assert_same_training,
    clones,
    every_parameter,
    give,
    gradient_sets,
    parameters,
    picture,
    sgd_beside,
)

STEPS = 25
Make = Callable[[Any], Any]


def rising(epoch: int) -> float:
    return 0.7 + 0.01 * epoch


def falling(epoch: int) -> float:
    return float(0.8 * 0.95**epoch)


def ninety_percent(epoch: int) -> float:
    return 0.9


# They compute lr anew each time.
ABSOLUTE: dict[str, Make] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, falling),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, T_mult=2, eta_min=0.01),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=STEPS + 1),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.2, step_size_up=4),
    "SequentialLR of two": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LambdaLR(o, rising), lr_scheduler.LambdaLR(o, falling)], [6]
    ),
}
# They compute lr from what stands in the group.
CHAINABLE: dict[str, Make] = {
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, ninety_percent),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [3, 4, 12], gamma=0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, total_iters=4),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.25, total_iters=8),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 20, power=2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 10, eta_min=0.01),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=2, factor=0.5),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=5), lr_scheduler.CosineAnnealingLR(o, 20)], [5]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, total_iters=3), lr_scheduler.ExponentialLR(o, 0.9)], optimizer=o
    ),
    "SWALR": lambda o: SWALR(o, 0.05, anneal_epochs=5),
}
ALL = {**ABSOLUTE, **CHAINABLE}


def by_rate(over: list[Tensor]) -> FusedCyclicSGD:
    groups: list[dict[str, Any]] = [
        {"params": over[:1], "weight_decay": 0.1},
        {"params": over[1:2], "lr": 0.4, "momentum": 0.5, "nesterov": True},
        {"params": over[2:], "dampening": 0.25},
    ]
    return FusedCyclicSGD(groups, lr=0.25, momentum=0.9)


def with_bounds(over: list[Tensor]) -> FusedCyclicSGD:
    return FusedCyclicSGD([{"params": [p]} for p in over], 0.1, 0.5, step_size_up=3, cycle_momentum=False, momentum=0.9)


def fresh() -> list[Tensor]:
    return parameters([7, (3, 2), ()])


def pair(make: Make) -> tuple[FusedCyclicSGD, SGD]:
    ours = make(fresh())
    return ours, sgd_beside(ours)[0]


SETS = gradient_sets(fresh(), 7)


def train(optimizer: Optimizer, scheduler: Any, steps: range) -> None:
    for step in steps:
        give(every_parameter(optimizer), SETS[step % len(SETS)])
        optimizer.step()
        scheduler.step(*[1.0 + step % 3] * isinstance(scheduler, lr_scheduler.ReduceLROnPlateau))


@pytest.mark.parametrize("name", ALL)
def test_under_a_constant_rate_the_weights_are_sgds(name: str) -> None:
    ours, theirs = pair(by_rate)
    for optimizer in (ours, theirs):
        train(optimizer, ALL[name](optimizer), range(STEPS))
    assert_same_training(ours, theirs)
    for own, group in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert (own["lr"], own["momentum"]) == (group["lr"], group["momentum"])
        assert own["applied_steps"] == STEPS


@pytest.mark.filterwarnings("ignore:.*something else has written lr:UserWarning")
@pytest.mark.parametrize("name", ABSOLUTE)
def test_over_bounds_what_computes_lr_anew_drives(name: str) -> None:
    ours, theirs = pair(with_bounds)
    for optimizer in (ours, theirs):
        train(optimizer, ABSOLUTE[name](optimizer), range(STEPS))
    assert_same_training(ours, theirs)
    assert ours.applied_steps <= 1


def from_state_dicts(optimizer: Any, scheduler: Any, make: Callable[[list[Tensor]], Any], schedule: Make) -> Any:
    saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    other = make(clones(every_parameter(optimizer)))
    again = schedule(other)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    return other, again


def copied_together(copied: Make, optimizer: Any, scheduler: Any, *_: object) -> Any:
    return copied((optimizer, scheduler))


WAYS: dict[str, Callable[..., Any]] = {
    "state dicts": from_state_dicts,
    **{name: partial(copied_together, copied) for name, copied in COPIES.items()},
}
RESUMED = [(by_rate, name) for name in ALL] + [(with_bounds, name) for name in ABSOLUTE]


@pytest.mark.filterwarnings("ignore:.*something else has written lr:UserWarning")
@pytest.mark.filterwarnings("ignore:Seems like .*has been overridden:UserWarning")  # torch's, of its own copies
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("make", "name"), RESUMED)
def test_killed_and_resumed_it_is_the_unbroken_run(make: Callable[[list[Tensor]], Any], name: str, way: str) -> None:
    unbroken = make(fresh())
    train(unbroken, ALL[name](unbroken), range(STEPS))
    optimizer = make(fresh())
    scheduler = ALL[name](optimizer)
    stops = [1, 4, 5, 11, 18, STEPS]
    train(optimizer, scheduler, range(stops[0]))
    for start, stop in itertools.pairwise(stops):
        optimizer, scheduler = WAYS[way](optimizer, scheduler, make, ALL[name])
        train(optimizer, scheduler, range(start, stop))
    assert_same_training(optimizer, unbroken)
    assert optimizer.get_last_lr() == unbroken.get_last_lr()
    assert optimizer.get_last_momentum() == unbroken.get_last_momentum()
    assert optimizer.applied_steps == unbroken.applied_steps


def test_a_driver_is_told_of_once_at_the_tenth_update_in_a_row() -> None:
    optimizer = with_bounds(fresh())
    scheduler = ABSOLUTE["LambdaLR"](optimizer)
    told = []
    for step in range(STEPS):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(optimizer, scheduler, range(step, step + 1))
        told += [(step, str(warning.message)) for warning in caught]
    ((step, text),) = told
    assert step == 9
    assert "parameter group 0" in text
    assert "leave the other scheduler out" in text
    assert "give it optimizer.as_scheduler()" in text
    assert "or give the optimizer lr=" in text


def test_nine_updates_in_a_row_are_no_driver() -> None:
    """A warm-up by hand, again and again: an update by the schedule lets the count start anew."""
    optimizer = with_bounds(fresh())
    for step in range(40):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 if step % 10 else group["lr"]
        train(optimizer, lr_scheduler.ReduceLROnPlateau(optimizer, patience=99), range(step, step + 1))
    assert optimizer.applied_steps == 4


@pytest.mark.parametrize("name", ALL)
def test_a_constant_schedule_is_driven_without_a_word(name: str) -> None:
    """Whichever way it was said. The suite makes an error of every warning."""
    constant, sgd = pair(lambda over: FusedCyclicSGD(over, 0.25, 0.25, cycle_momentum=False, momentum=0.9))
    for optimizer in (constant, sgd):
        train(optimizer, ALL[name](optimizer), range(STEPS))
    assert_same_training(constant, sgd)
    assert constant.applied_steps == STEPS


def test_a_warning_that_is_an_error_comes_before_the_first_write() -> None:
    ours, theirs = pair(with_bounds)
    schedulers = [ABSOLUTE["LambdaLR"](each) for each in (ours, theirs)]
    for each, scheduler in zip((ours, theirs), schedulers, strict=True):
        train(each, scheduler, range(9))
    give(every_parameter(ours), SETS[9 % len(SETS)])
    before = picture(ours)
    with pytest.raises(UserWarning, match="something else has written lr"):
        ours.step()
    assert picture(ours) == before
    for each, scheduler in zip((ours, theirs), schedulers, strict=True):
        train(each, scheduler, range(9, STEPS))
    assert_same_training(ours, theirs)


# What README says of those that compute lr from what stands in the group: the rates of the updates, by hand.
HELD: dict[str, tuple[list[float], int]] = {
    "LinearLR": ([0.25, 1.375, 1.2727, 1.2143, 1.1765, 1.15, 1.1304, 1.1154, 1.1034, 1.0, 2.0], 2),
    "ConstantLR": ([0.5, 1.0, 2.0, 3.0, 8.0, 4.0, 5.0, 4.0, 3.0, 2.0, 1.0], 9),
    "ExponentialLR": ([1.0, *[1.8] * 10], 1),
    "StepLR": ([1.0, 2.0, 3.0, 4.0, 5.0, 0.4, 4.0, 3.0, 2.0, 1.0, 0.2], 9),
}


@pytest.mark.filterwarnings("ignore:.*something else has written lr:UserWarning")
@pytest.mark.parametrize("name", HELD)
def test_over_bounds_a_chainable_one_multiplies_the_value_of_the_next_update(name: str) -> None:
    """In units of base_lr. Each update that it changes does not advance the schedule."""
    rates, applied = HELD[name]
    optimizer = FusedCyclicSGD(fresh(), 0.1, 0.5, step_size_up=4, cycle_momentum=False)
    scheduler, found = CHAINABLE[name](optimizer), []
    for step in range(len(rates)):
        found.append(optimizer.param_groups[0]["lr"] / 0.1)
        train(optimizer, scheduler, range(step, step + 1))
    assert [round(rate, 4) for rate in found] == rates
    assert optimizer.applied_steps == applied
