"""What torch's CyclicLR and OneCycleLR do to an optimizer and CyclicLR does not: each trap with the peer in it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from clr_native import CyclicLR, CyclicSchedule, OneCycleSchedule
from schedulers import add, advance, momenta, rates, refused, seen, sgd, values


def first_rate(kind: Any) -> float:
    """Constructed after anything that has set initial_lr."""
    optimizer = sgd()
    lr_scheduler.StepLR(optimizer, 3)
    kind(optimizer, 0.25, 0.5)
    assert optimizer.param_groups[0]["initial_lr"] == 7.0
    return rates(optimizer)[0]


def rates_of_a_shared_tensor(kind: Any) -> list[float]:
    return rates(kind(sgd(2, lr=torch.tensor(7.0)), [0.25, 0.5], 1.0))


def step_after_adding(kind: Any) -> None:
    scheduler = kind(sgd(), 0.25, 0.5)
    add(scheduler)
    advance(scheduler)


def load_twice(kind: Any) -> None:
    scheduler = kind(sgd(), 0.25, 0.5)
    state = scheduler.state_dict()
    scheduler.load_state_dict(state)
    scheduler.load_state_dict(state)


def rate_far_on(kind: Any) -> float:
    scheduler = kind(sgd(), 0.25, 0.5, step_size_up=1, mode="triangular2")
    scheduler.last_epoch = 2 * 1100
    advance(scheduler)
    return rates(scheduler)[0]


def missed_peaks(kind: Any) -> int:
    scheduler = kind(sgd(), 0.1, 0.7, step_size_up=333, step_size_down=667)
    missed = 0
    for cycle in range(50):
        scheduler.last_epoch = cycle * 1000 + 332
        advance(scheduler)
        missed += rates(scheduler) != [0.7]
    return missed


def state_with_builtin(kind: Any) -> None:
    kind(sgd(), 0.25, 0.5, scale_fn=(2.0).__rpow__).state_dict()


def initial_lr_of_others(kind: Any) -> float:
    optimizer = sgd()
    lr_scheduler.StepLR(optimizer, 3)
    if kind is CyclicLR:
        CyclicLR(optimizer, schedule=OneCycleSchedule(0.5, 9))
    else:
        lr_scheduler.OneCycleLR(optimizer, 0.5, 9)
    initial: float = optimizer.param_groups[0]["initial_lr"]
    return initial


def momentum_during_warm_up(kind: Any) -> float:
    optimizer = sgd()
    schedulers = [lr_scheduler.ConstantLR(optimizer, 0.5, 9), kind(optimizer, 0.25, 0.75)]
    lr_scheduler.SequentialLR(optimizer, schedulers, [5])
    return momenta(optimizer)[0]


# What each gives with CyclicLR, and with torch's: a value, or the name of an error.
TRAPS: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
    "the first batch runs at a stale initial_lr": (first_rate, 0.25, 7.0),
    "groups that share an lr tensor run at the last one's rate": (rates_of_a_shared_tensor, "ValueError", [0.5, 0.5]),
    "a late group cannot be stepped": (step_after_adding, None, "ValueError"),
    "loading eats a key of the caller's dict": (load_twice, None, "KeyError"),
    "triangular2 overflows at cycle 1025": (rate_far_on, 0.25, "OverflowError"),
    "peaks miss max_lr by ulps": (missed_peaks, 0, 50),
    "a builtin scale_fn crashes state_dict": (state_with_builtin, None, "AttributeError"),
    "one cycle rewrites the initial_lr of others": (initial_lr_of_others, 7.0, 0.02),
    "momentum is forced during another's warm-up": (momentum_during_warm_up, 0.5, 0.9),
}


def outcome(act: Callable[[Any], Any], kind: Any) -> Any:
    try:
        return act(kind)
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize("trap", TRAPS)
def test_cyclic_lr_does_not_step_into_the_trap(trap: str) -> None:
    act, expected, _ = TRAPS[trap]
    assert outcome(act, CyclicLR) == expected


@pytest.mark.parametrize("trap", TRAPS)
def test_torchs_does(trap: str) -> None:
    act, mended, expected = TRAPS[trap]
    found = outcome(act, lr_scheduler.CyclicLR)
    if found == mended:
        pytest.skip(f"this torch has no such trap any more: {trap}")
    assert found == expected


def test_initial_lr_is_a_copy_of_the_optimizers_own_rate() -> None:
    """Other schedulers find it there."""
    for lr in (7.0, torch.tensor(7.0)):
        optimizer = sgd(lr=lr)
        CyclicLR(optimizer, 0.25, 0.5)
        assert lr_scheduler.ConstantLR(optimizer, 0.5).base_lrs == [7.0]


@pytest.mark.parametrize("kind", [CyclicLR, lr_scheduler.CyclicLR])
def test_scale_mode_iterations_counts_from_the_start(kind: Any) -> None:
    """And not within the cycle."""
    counted: list[int] = []

    def scale(iteration: int) -> float:
        counted.append(iteration)
        return 1.0

    arguments = {"step_size_up": 1, "scale_fn": scale, "scale_mode": "iterations", "cycle_momentum": False}
    advance(kind(sgd(), 0.25, 0.5, **arguments), steps=4)
    assert counted == [0, 1, 2, 3, 4]


# torch's OneCycleLR is over with an error, and cannot be extended on resume.


@pytest.mark.parametrize("max_lrs", [[0.5], [0.5, 0.5], [0.5, 0.25, 0.125]])
def test_one_cycle_holds_after_its_end_with_one_warning(max_lrs: list[float]) -> None:
    schedules = [OneCycleSchedule(max_lr, 9) for max_lr in max_lrs]
    scheduler = CyclicLR(sgd(len(schedules)), schedule=schedules)
    advance(scheduler, steps=8)
    end = values(scheduler)
    assert end == [schedule(8) for schedule in schedules]
    scheduler.optimizer.step()
    with pytest.warns(UserWarning, match="parameter group 0: last_epoch=9 is past the end of its schedule") as caught:
        scheduler.step()
    assert [warning.filename for warning in caught] == [__file__]
    advance(scheduler, steps=3)  # without another one
    assert values(scheduler) == end


def test_a_warning_made_an_error_leaves_the_position() -> None:
    scheduler = CyclicLR(sgd(), schedule=OneCycleSchedule(0.5, 2))
    advance(scheduler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with refused("past the end", scheduler, error=UserWarning):
            scheduler._update_lr()


def test_one_cycle_is_extended_on_resume() -> None:
    schedule = OneCycleSchedule(0.5, 9)
    longer = schedule.extended(20)
    scheduler, other = CyclicLR(sgd(), schedule=schedule), CyclicLR(sgd(), schedule=schedule)
    advance(scheduler, steps=8)
    other.load_state_dict(scheduler.state_dict())
    other.schedules = longer
    assert other.schedules == (longer,)
    assert seen(other, 11) == [longer(step) for step in range(8, 19)]
    assert values(other) == [longer(19)]


# Step sizes that are not whole, max below base and the like: test_cyclic_lr_refused.py, bad arguments.


def test_base_lrs_say_what_the_schedules_say() -> None:
    scheduler = CyclicLR(sgd(2), schedule=[CyclicSchedule(0.25, 1), OneCycleSchedule(1.0, 9)])
    assert scheduler.base_lrs == [0.25, 0.04]
    with pytest.raises(AttributeError, match="set schedules instead"):
        scheduler.base_lrs = [1.0]
