"""CyclicLR among torch's schedulers that hold others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    ExponentialLR,
    LRScheduler,
    SequentialLR,
)

from clr_native import CyclicLR, CyclicSchedule
from schedulers import adam, advance, assert_same_run, load, seen, sgd, tensor_lr, values

CYCLE = CyclicSchedule(1, 5, step_size_up=2, base_momentum=0.25, max_momentum=0.75)


def cyclic(optimizer: Optimizer) -> CyclicLR:
    return CyclicLR(optimizer, schedule=CYCLE)


def warm_up(optimizer: Optimizer) -> LRScheduler:
    return ConstantLR(optimizer, 0.5, total_iters=100)


Maker = Callable[[Optimizer], LRScheduler]


def in_sequence(
    optimizer: Optimizer, makers: list[Maker], milestones: list[int], order: list[int] | None = None
) -> SequentialLR:
    """Constructs the schedulers in this order and puts them one after another."""
    made = {i: makers[i](optimizer) for i in order or range(len(makers))}
    return SequentialLR(optimizer, [made[i] for i in range(len(makers))], milestones)


@pytest.mark.parametrize("optimizer_of", [sgd, adam, tensor_lr])
@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_sequential_lr_leaves_momentum_alone_during_the_others_warm_up(
    optimizer_of: Callable[[], Optimizer], order: list[int]
) -> None:
    scheduler = in_sequence(optimizer_of(), [warm_up, cyclic], [3], order)
    assert seen(scheduler, 8) == [(3.5, 0.5)] * 3 + [CYCLE(step) for step in range(5)]
    assert scheduler.get_last_lr() == [1 + 2 * 1.0]


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0]])
def test_sequential_lr_with_several_cyclic_ones(order: list[int]) -> None:
    def smaller(optimizer: Optimizer) -> CyclicLR:
        return CyclicLR(optimizer, 0.5, 1.5, step_size_up=1, base_momentum=0.125, max_momentum=0.375)

    scheduler = in_sequence(sgd(), [warm_up, cyclic, smaller], [2, 5], order)
    small = [(0.5, 0.375), (1.5, 0.125), (0.5, 0.375)]
    assert seen(scheduler, 8) == [(3.5, 0.5)] * 2 + [CYCLE(step) for step in range(3)] + small


def test_sequential_lr_that_begins_with_it() -> None:
    scheduler = in_sequence(sgd(), [cyclic, lambda o: ExponentialLR(o, 0.5)], [3])
    # Afterwards momentum stays as it was last written; rates come from the optimizer's own.
    after = [(7.0, CYCLE(2).momentum), (3.5, CYCLE(2).momentum)]
    assert seen(scheduler, 5) == [CYCLE(0), CYCLE(1), CYCLE(2), *after]


def test_nested_sequences() -> None:
    optimizer = sgd()
    inner = in_sequence(optimizer, [warm_up, cyclic], [2])
    optimizer.step()  # or torch warns of its own order of calls
    scheduler = SequentialLR(optimizer, [inner, ConstantLR(optimizer, 0.25, 100)], [4])
    # torch counts the first batch of the inner one twice.
    assert seen(scheduler, 5) == [(3.5, 0.5), CYCLE(0), CYCLE(1), CYCLE(2), (1.75, CYCLE(2).momentum)]


@pytest.mark.parametrize("makers", [[warm_up, cyclic], [cyclic, warm_up], [cyclic, lambda o: ExponentialLR(o, 0.5)]])
@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("optimizer_last", [True, False])
def test_a_sequence_resumes_in_every_phase(makers: list[Maker], steps: int, optimizer_last: bool) -> None:
    scheduler, resumed = in_sequence(sgd(), makers, [3]), in_sequence(sgd(), makers, [3])
    advance(scheduler, steps=steps)
    load(resumed, scheduler, optimizer_last=optimizer_last)
    assert_same_run(resumed, scheduler, 5)


@pytest.mark.parametrize("given", [{}, {"optimizer": "its own"}])
@pytest.mark.parametrize("place", [0, 1])
def test_chained_scheduler_is_refused(given: dict[str, Any], place: int) -> None:
    optimizer = sgd()
    schedulers = [warm_up(optimizer)]
    schedulers.insert(place, cyclic(optimizer))
    arguments = {"optimizer": optimizer} if given else {}
    with pytest.raises(ValueError, match=r"ChainedScheduler multiplies .* schedule=ScheduleSequence"):
        ChainedScheduler(schedulers, **arguments)
    assert schedulers[place].optimizer is optimizer


def test_a_scheduler_set_back_and_stepped_begins_anew() -> None:
    scheduler = cyclic(sgd())
    advance(scheduler, steps=3)
    scheduler.last_epoch = -1
    assert values(scheduler)[0][1] == 0.5
    advance(scheduler)
    assert values(scheduler) == [CYCLE(0)]
    with pytest.raises(TypeError, match=r"step=1\.5 must be an int"):
        scheduler.last_epoch = 1.5  # type: ignore[assignment]
    assert scheduler.last_epoch == 0
