"""CyclicLR driven by get_lr() and last_epoch, by wrappers that write lr themselves: beside torch's, and its memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import Optimizer, lr_scheduler

from clr_native import CyclicLR, CyclicSchedule, OneCycleSchedule, RampSchedule, ScheduleSequence
from helpers import picture
from schedulers import (
    COPIES,
    adam,
    add,
    advance,
    assert_same_run,
    load,
    momenta,
    rates,
    refused,
    sgd,
    tensor_lr,
    values,
    weights,
)

LISTS: dict[str, Any] = {"base_lr": [1, 2], "max_lr": [5, 10], "base_momentum": [0.25, 0.5], "max_momentum": [0.75, 1]}
ONE: dict[str, Any] = {"base_lr": 1, "max_lr": 5, "base_momentum": 0.25, "max_momentum": 0.75}
CYCLE = CyclicSchedule(**ONE, step_size_up=4)
KINDS: tuple[Any, Any] = (CyclicLR, lr_scheduler.CyclicLR)


def tensor_momentum(groups: int) -> Optimizer:
    optimizer = tensor_lr(groups)
    for group in optimizer.param_groups:
        group["momentum"] = torch.tensor(0.5)
    return optimizer


def tensor_betas(groups: int) -> Optimizer:
    optimizer = torch.optim.Adam(weights(groups), lr=7.0, foreach=False)
    for group in optimizer.param_groups:
        group["betas"] = (torch.tensor(0.5), torch.tensor(0.75))
    return optimizer


OPTIMIZERS: dict[str, Callable[[int], Optimizer]] = {
    "SGD": sgd,
    "Adam": adam,
    "RMSprop": lambda groups: torch.optim.RMSprop(weights(groups), lr=7.0, momentum=0.5),
    "tensors": tensor_momentum,
    "tensor betas": tensor_betas,
}
# Binary fractions and halves, with which torch's arithmetic is exact too.
CASES: dict[str, dict[str, Any]] = {
    "one for all": {**ONE, "step_size_up": 4},
    "lists": {**LISTS, "step_size_up": 4},
    "triangular2": {**LISTS, "step_size_up": 2, "mode": "triangular2"},
    "exp_range": {**ONE, "step_size_up": 4, "mode": "exp_range", "gamma": 0.5},
    "scale_fn": {**ONE, "step_size_up": 2, "scale_fn": lambda i: 0.5**i, "scale_mode": "iterations"},
    "without momentum": {**ONE, "step_size_up": 4, "cycle_momentum": False},
}


def drive(scheduler: lr_scheduler.LRScheduler) -> None:
    """As pytorch-ignite's LRScheduler does before each batch."""
    scheduler._get_lr_called_within_step = True
    rates = scheduler.get_lr()
    scheduler._get_lr_called_within_step = False
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler.last_epoch += 1


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("optimizer_of", OPTIMIZERS)
def test_a_wrapper_gets_torchs_rates_and_momenta(optimizer_of: str, name: str) -> None:
    ours, theirs = OPTIMIZERS[optimizer_of](2), OPTIMIZERS[optimizer_of](2)
    scheduler, reference = CyclicLR(ours, **CASES[name]), lr_scheduler.CyclicLR(theirs, **CASES[name])
    start = rates(ours)
    for _ in range(20):
        for each in (scheduler, reference):
            drive(each)
        assert values(ours) == values(theirs)
        # Both say what step() wrote, which only the constructor has called.
        assert scheduler.get_last_lr() == reference.get_last_lr() == start
        assert scheduler.get_last_momentum() == ([None] * 2 if name == "without momentum" else momenta(ours))


@pytest.mark.parametrize("position", [0, 1, 3, 8, 13, 2**40 + 3])
@pytest.mark.parametrize("optimizer_of", [sgd, adam, tensor_momentum])
def test_positions_set_by_hand(optimizer_of: Callable[[int], Optimizer], position: int) -> None:
    ours, theirs = optimizer_of(1), optimizer_of(1)
    scheduler, reference = CyclicLR(ours, schedule=CYCLE), lr_scheduler.CyclicLR(theirs, **ONE, step_size_up=4)
    before = rates(ours)
    for each in (scheduler, reference):
        each.last_epoch = position
    with pytest.warns(UserWarning, match="please use `get_last_lr"):  # torch's alone: our rates are right at any time
        theirs_now = reference.get_lr()
    assert scheduler.get_lr() == theirs_now == [CYCLE(position).lr]
    assert momenta(ours) == momenta(theirs) == [CYCLE(position).momentum]
    assert rates(ours) == before == scheduler.get_last_lr()


def test_before_the_first_batch_the_values_are_those_of_the_first() -> None:
    """torch's are of the last step of a cycle that was not there."""
    scheduler = CyclicLR(sgd(), schedule=CYCLE)
    scheduler.last_epoch = -1
    assert momenta(scheduler) == [0.5]
    assert (scheduler.get_lr(), momenta(scheduler)) == ([CYCLE(0).lr], [CYCLE(0).momentum])
    drive(scheduler)
    assert (values(scheduler), scheduler.last_epoch) == ([CYCLE(0)], 0)


@pytest.mark.parametrize("optimizer_of", OPTIMIZERS)
def test_after_a_step_it_changes_nothing(optimizer_of: str) -> None:
    scheduler = CyclicLR(OPTIMIZERS[optimizer_of](2), **LISTS)
    advance(scheduler, steps=3)
    before = picture(scheduler.optimizer), scheduler.state_dict()
    assert scheduler.get_lr() == scheduler.get_last_lr()
    assert (picture(scheduler.optimizer), scheduler.state_dict()) == before


def test_rates_are_copies_of_the_kind_that_stands_in_the_group() -> None:
    optimizer = tensor_momentum(1)
    (lr,) = CyclicLR(optimizer, schedule=CYCLE).get_lr()
    assert isinstance(lr, torch.Tensor)
    lr.fill_(9.0)
    assert rates(optimizer) == [1.0]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (RampSchedule(1, 2, 4), [0.5] * 6),
        (RampSchedule(1, 2, 4, momentum=0.25), [0.25] * 6),
        (ScheduleSequence([(RampSchedule(1, 2, 2), 2), (CYCLE, None)]), [0.5, 0.5, 0.75, 0.625, 0.5, 0.375]),
        (ScheduleSequence([(CYCLE, 2), (RampSchedule(1, 2, 2), None)]), [0.75] + [0.625] * 5),
    ],
)
def test_where_a_schedule_has_no_momentum_it_is_left_alone(schedule: Any, expected: list[float]) -> None:
    scheduler = CyclicLR(sgd(), schedule=schedule)
    seen = []
    for _ in expected:
        drive(scheduler)
        seen += momenta(scheduler)
    assert seen == expected


def test_the_end_of_one_cycle_warns_where_it_is_asked_for() -> None:
    scheduler = CyclicLR(sgd(), schedule=OneCycleSchedule(0.5, 3))
    for _ in range(3):
        drive(scheduler)
    with pytest.warns(UserWarning, match="last_epoch=3 is past the end") as caught:
        scheduler.get_lr()
    assert [warning.filename for warning in caught] == [__file__]


def test_a_late_group_joins() -> None:
    scheduler = CyclicLR(sgd(), schedule=CYCLE)
    drive(scheduler)
    add(scheduler)
    drive(scheduler)
    assert values(scheduler) == [CYCLE(1)] * 2


class GradualWarmup(lr_scheduler.LRScheduler):
    """As the package of that name, and many copies of it: the scheduler after it is asked, and then stepped."""

    def __init__(self, after: Any, steps: int) -> None:
        self.after, self.steps, self.finished = after, steps, False
        super().__init__(after.optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        if self.last_epoch <= self.steps:
            return [self.last_epoch / self.steps] * len(self.optimizer.param_groups)
        if not self.finished:
            self.after.base_lrs = [0.5 * lr for lr in self.after.base_lrs]
            self.finished = True
        self.after._get_lr_called_within_step = True
        rates: list[float | torch.Tensor] = self.after.get_lr()
        return rates

    def step(self, epoch: int | None = None) -> None:
        if self.finished:
            self.after.step()
            self._last_lr = self.after.get_last_lr()
        else:
            super().step()


@pytest.mark.parametrize("optimizer_of", [sgd, adam, tensor_momentum])
def test_a_warm_up_wrapper(optimizer_of: Callable[[int], Optimizer]) -> None:
    ours, theirs = (GradualWarmup(kind(optimizer_of(2), **LISTS, step_size_up=4), 4) for kind in KINDS)
    assert_same_run(ours, theirs, 16)


# --- what cannot be written -----------------------------------------------------------------------------------------


def without_betas(optimizer: Optimizer) -> None:
    optimizer.param_groups[1]["betas"] = ()


def without_lr(optimizer: Optimizer) -> None:
    del optimizer.param_groups[1]["lr"]


def without_a_group(optimizer: Optimizer) -> None:
    del optimizer.param_groups[1]


def sharing(optimizer: Optimizer) -> None:
    beta = torch.tensor(0.5)
    for group in optimizer.param_groups:
        group["betas"] = (beta, 0.75)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_betas, r"parameter group 1: betas=\(\) must"),
        (without_lr, "parameter group 1: has lost its key 'lr'"),
        (without_a_group, "param_groups has 1 groups, of 2"),
        (sharing, r"parameter group 1: betas\[0\]=\S+ .* group 0 holds too"),
    ],
)
def test_what_cannot_be_written_changes_nothing(spoil: Callable[[Optimizer], None], message: str) -> None:
    scheduler = CyclicLR(adam(2), **LISTS)
    scheduler.last_epoch = 1
    scheduler.optimizer.param_groups[0]["betas"] = (torch.tensor(0.5), 0.75)
    spoil(scheduler.optimizer)
    with refused(message, scheduler):
        scheduler.get_lr()


# --- what is remembered ---------------------------------------------------------------------------------------------


def driven(batches: int) -> CyclicLR:
    scheduler = CyclicLR(sgd(2), **LISTS, step_size_up=4)
    for _ in range(batches):
        drive(scheduler)
    return scheduler


@pytest.mark.parametrize("optimizer_last", [True, False])
@pytest.mark.parametrize("batches", [0, 1, 3, 8, 9])
def test_a_driven_scheduler_is_saved_and_goes_on(batches: int, optimizer_last: bool) -> None:
    scheduler, other = driven(batches), driven(0)
    load(other, scheduler, optimizer_last=optimizer_last)
    assert other.get_last_momentum() == scheduler.get_last_momentum()
    assert_same_run(other, scheduler, 9, drive)


def test_a_driven_scheduler_is_not_in_charge_of_the_rates() -> None:
    assert [driven(batches).state_dict()["in_charge"] for batches in (0, 1, 2, 8)] == [True] + [False] * 3


@pytest.mark.parametrize("position", [-1, 5])
def test_a_position_set_by_hand_has_written_nothing(position: int) -> None:
    """Neither has loading its state, and both say so."""
    scheduler, other = driven(0), driven(0)
    scheduler.last_epoch = position
    load(other, scheduler)
    for each in (scheduler, other, copy.deepcopy(other)):
        assert each.get_last_lr() == rates(each) == [1.0, 2.0]
        assert not each.state_dict()["in_charge"]
        each._update_lr()
        assert each.state_dict()["in_charge"]
    assert values(other) == values(scheduler)


@pytest.mark.parametrize("name", ["_last_lr", "_last_momentum"])
def test_a_state_that_tells_values_of_other_groups_is_refused(name: str) -> None:
    scheduler = driven(3)
    with refused(f"{name} with 1 entries must have one for each of the 2 groups", scheduler):
        scheduler.load_state_dict({**scheduler.state_dict(), name: [0.5]})


@pytest.mark.parametrize("copied", COPIES)
def test_copies_remember(copied: Callable[[Any], Any]) -> None:
    scheduler = driven(3)
    other = copied(scheduler)
    for each in (scheduler, other):
        assert each.get_last_lr() == [1, 2]
        assert each.get_last_momentum() == [0.5, 0.75]
        each._update_lr()
    assert other.get_last_lr() == scheduler.get_last_lr() == rates(other)
    assert other.get_last_momentum() == momenta(other)


def test_another_one_finds_the_momentum_that_the_optimizer_had() -> None:
    scheduler = driven(3)
    assert momenta(scheduler) == [0.5, 0.75]
    CyclicLR(scheduler.optimizer, 1, 5).last_epoch = -1
    assert momenta(scheduler) == [0.5, 0.5]


def test_a_schedule_without_momentum_gives_the_optimizers_back() -> None:
    scheduler = driven(3)
    scheduler.schedules = RampSchedule(1, 2, 4)
    assert momenta(scheduler) == [0.5, 0.5]
