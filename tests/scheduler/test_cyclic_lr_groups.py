"""CyclicLR and parameter groups: late ones, what stands in them, and user code in the middle of a step."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD, Optimizer

from clr_native import CyclicLR, CyclicSchedule, RampSchedule
from helpers import raised
from schedulers import adam, add, advance, assert_same_run, momenta, rates, refused, sgd, values, weights

CYCLE = CyclicSchedule(1, 5, step_size_up=4, base_momentum=0.25, max_momentum=0.75)
LISTS: dict[str, Any] = {"base_lr": [1, 2], "max_lr": [5, 10], "step_size_up": 4}


# --- late groups ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer_of", [sgd, adam])
@pytest.mark.parametrize("count", [1, 2])
def test_a_late_group_joins_at_the_next_step(optimizer_of: Callable[[int], Optimizer], count: int) -> None:
    scheduler = CyclicLR(optimizer_of(2), schedule=CYCLE)
    advance(scheduler, steps=2)
    for _ in range(count):
        add(scheduler)
    assert rates(scheduler)[2:] == [7.0] * count
    advance(scheduler)
    assert values(scheduler) == [CYCLE(3)] * (2 + count)
    assert len({id(schedule) for schedule in scheduler.schedules}) == 1
    assert [group["initial_lr"] for group in scheduler.optimizer.param_groups] == [7.0] * (2 + count)
    assert scheduler.get_last_lr() == rates(scheduler)


def test_a_late_group_where_arguments_were_lists_brings_its_own() -> None:
    scheduler = CyclicLR(sgd(2), **LISTS)
    advance(scheduler)
    add(scheduler.optimizer, base_lr=0.5, max_lr=2.5, mode="triangular2")
    advance(scheduler)
    assert rates(scheduler) == [3.0, 6.0, 1.5]
    assert scheduler.schedules[2] == CyclicSchedule(0.5, 2.5, step_size_up=4, mode="triangular2")


def test_a_late_group_may_bring_its_own_where_all_have_the_same() -> None:
    scheduler = CyclicLR(sgd(), 1, 5, step_size_up=4)
    add(scheduler.optimizer, max_lr=9)
    add(scheduler.optimizer, schedule=RampSchedule(1, 2, 2))
    advance(scheduler)
    assert rates(scheduler) == [2.0, 3.0, 1.5]


@pytest.mark.parametrize(
    ("arguments", "own", "message"),
    [
        (LISTS, {}, "parameter group 2: base_lr=None, max_lr=None: .* add_param_group"),
        (LISTS, {"base_lr": 1}, "parameter group 2: max_lr=None: "),
        (LISTS, {"base_lr": 9, "max_lr": 1}, r"parameter group 2: base_lr=9\.0 must not be above"),
        ({"schedule": [CYCLE, CYCLE]}, {}, "parameter group 2: schedule=None: "),
        ({"schedule": [CYCLE, CYCLE]}, {"schedule": 3}, "parameter group 2: schedule=3 must be a schedule"),
        ({"schedule": CYCLE}, {"schedule": CYCLE, "gamma": 1}, "parameter group 2: gamma=1 cannot be combined"),
        ({"schedule": CYCLE}, {"base_lr": 1.0}, "parameter group 2: base_lr=1.0 cannot be combined"),
    ],
)
def test_a_late_group_that_lacks_arguments_changes_nothing(
    arguments: dict[str, Any], own: dict[str, Any], message: str
) -> None:
    scheduler = CyclicLR(sgd(2), **arguments)
    advance(scheduler)
    add(scheduler, **own)
    for call in (scheduler._update_lr, scheduler.state_dict):
        with refused(message, scheduler):
            call()


def test_late_groups_are_saved_and_loaded() -> None:
    scheduler, other = CyclicLR(sgd(2), **LISTS), CyclicLR(sgd(2), **LISTS)
    add(scheduler, base_lr=0.5, max_lr=2.5)
    advance(scheduler)
    add(other)
    other.load_state_dict(scheduler.state_dict())
    assert_same_run(scheduler, other, 3)


def test_a_late_group_after_loading_joins_what_was_loaded() -> None:
    scheduler = CyclicLR(sgd(), 0.5, 0.75)
    scheduler.load_state_dict(CyclicLR(sgd(), schedule=CYCLE).state_dict())
    add(scheduler)
    advance(scheduler)
    assert values(scheduler) == [CYCLE(1)] * 2


@pytest.mark.parametrize(
    "own",
    [
        {"schedule": RampSchedule(1, 2, 2)},
        {"schedule": CyclicSchedule(1, 2, scale_fn=abs)},
        {"max_lr": 9, "scale_fn": lambda cycle: 1.0},
    ],
)
def test_what_a_late_group_brings_does_not_stay_in_the_optimizers_state(own: dict[str, Any]) -> None:
    """A schedule or a function there could not be saved as plain data."""
    twin = sgd(2)
    saved = CyclicLR(twin, 1, 5).state_dict()
    for join in (CyclicLR._update_lr, CyclicLR.state_dict, lambda each: each.load_state_dict(saved)):
        optimizer = sgd()
        scheduler = CyclicLR(optimizer, 1, 5)
        add(optimizer, **own, mine=3)
        join(scheduler)
        assert optimizer.param_groups[1].keys() == twin.param_groups[1].keys() | {"mine"}
        assert optimizer.param_groups[1]["initial_lr"] == 7.0


def test_what_the_optimizer_calls_as_the_schedule_does_is_its_own() -> None:
    """AdaBound has a gamma, and every group of it."""

    class Bounded(SGD):
        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=7.0, momentum=0.5)
            self.defaults["gamma"] = 1e-3

    optimizer = Bounded(weights(1))
    scheduler = CyclicLR(optimizer, schedule=CYCLE)
    add(optimizer)
    advance(scheduler)
    assert values(optimizer) == [CYCLE(1)] * 2
    assert optimizer.param_groups[1]["gamma"] == 1e-3


def test_groups_taken_out_are_missed() -> None:
    scheduler = CyclicLR(sgd(2), 1, 5)
    scheduler.optimizer.param_groups.pop()
    with refused("param_groups has 1 groups, of 2", scheduler):
        scheduler._update_lr()


# --- what stands in a group -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.float64(3), np.float32(3), 3, True])
def test_numbers_of_other_types_are_replaced(value: Any) -> None:
    optimizer = sgd()
    scheduler = CyclicLR(optimizer, schedule=CYCLE)
    optimizer.step()
    optimizer.param_groups[0].update(lr=value, momentum=value)
    scheduler.step()
    assert values(optimizer) == [CYCLE(1)]
    assert type(optimizer.param_groups[0]["lr"]) is float
    assert type(optimizer.param_groups[0]["momentum"]) is float


def test_groups_replaced_by_a_loaded_state_are_followed() -> None:
    optimizer = adam(2)
    scheduler = CyclicLR(optimizer, schedule=CYCLE)
    before = optimizer.param_groups[0]
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[0] is not before
    advance(scheduler)
    assert values(optimizer) == [CYCLE(1)] * 2


def test_other_betas_set_between_steps_are_kept() -> None:
    scheduler = CyclicLR(adam(3), schedule=CYCLE)
    scheduler.optimizer.param_groups[1]["betas"] = (0.125, 0.875)
    advance(scheduler)
    first = CYCLE(1).momentum
    assert [group["betas"] for group in scheduler.optimizer.param_groups] == [
        (first, 0.75),
        (first, 0.875),
        (first, 0.75),
    ]


# --- user code in the middle of a step ------------------------------------------------------------------------------


class Meddling:
    """Stands in a group; does something when it is replaced."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action

    def __del__(self) -> None:
        self.action()


def test_an_object_whose_end_empties_the_groups() -> None:
    optimizer = sgd(3)
    scheduler = CyclicLR(optimizer, schedule=CYCLE)
    optimizer.step()
    groups = list(optimizer.param_groups)
    optimizer.param_groups[0]["lr"] = Meddling(optimizer.param_groups.clear)
    scheduler.step()
    assert optimizer.param_groups == []
    assert [group["lr"] for group in groups] == [CYCLE(1).lr] * 3


def test_what_an_objects_end_writes_is_seen_at_the_next_step() -> None:
    """Nothing of what was written may be taken for what still stands there."""
    scheduler = CyclicLR(adam(), schedule=CYCLE)
    (group,) = scheduler.optimizer.param_groups
    scheduler.optimizer.step()
    tensor = torch.tensor(7.0)
    group["betas"] = (Meddling(lambda: group.update(lr=tensor, betas=(0.5, 0.625))), 0.75)
    scheduler.step()
    assert group["lr"] is tensor
    gc.collect()
    scheduler._update_lr()
    assert group["lr"] is tensor
    assert tensor.item() == CYCLE(2).lr
    assert group["betas"] == (CYCLE(2).momentum, 0.625)


def test_a_step_within_a_step_is_refused() -> None:
    errors: list[Exception | None] = []

    def scale(cycle: int) -> float:
        if made:
            errors.append(raised(made[0]._update_lr))
        return 1.0

    made: list[CyclicLR] = []
    scheduler = CyclicLR(sgd(), 1, 5, scale_fn=scale)
    made.append(scheduler)
    advance(scheduler)
    assert "while a step of the same scheduler is running" in str(errors[0])
    assert scheduler.last_epoch == 1


def test_a_tensor_whose_fill_takes_groups_out() -> None:
    class Taking(torch.Tensor):
        def fill_(self, value: Any) -> Any:
            optimizer.param_groups[1].clear()
            optimizer.param_groups.clear()
            gc.collect()
            return super().fill_(value)

    optimizer = sgd(2)
    scheduler = CyclicLR(optimizer, schedule=CYCLE)
    second = optimizer.param_groups[1]
    optimizer.param_groups[0]["lr"] = torch.tensor(7.0).as_subclass(Taking)
    scheduler._update_lr()
    assert second == {"lr": CYCLE(1).lr, "momentum": CYCLE(1).momentum}


def test_a_scheduler_that_its_function_refers_to_is_collected() -> None:
    def make() -> weakref.ref[CyclicLR]:
        optimizer = sgd()
        holder: list[CyclicLR] = []
        holder.append(CyclicLR(optimizer, 1, 5, scale_fn=lambda cycle: 1.0 + 0.0 * len(holder)))
        return weakref.ref(holder[0])

    reference = make()
    gc.collect()
    assert reference() is None


def test_momenta_of_all_kinds() -> None:
    optimizer = SGD(weights(2), lr=0.1)
    scheduler = CyclicLR(optimizer, schedule=[CYCLE, RampSchedule(1, 2, 3)])
    assert scheduler.get_last_momentum() == [0.75, None]
    assert momenta(optimizer) == [0.75, 0.0]
