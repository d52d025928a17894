"""as_scheduler(): a torch scheduler for the slot of a framework's own, which changes nothing and logs right."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from clr_native import CyclicSchedule, FusedCyclicSGD
from helpers import bits, every_parameter, give, gradient_sets, parameters

SCHEDULE = CyclicSchedule(0.01, 0.1, step_size_up=3)


def made() -> FusedCyclicSGD:
    groups: list[dict[str, Any]] = [{"params": parameters([3])}, {"params": parameters([17]), "lr_scale": 2.0}]
    return FusedCyclicSGD(groups, schedule=SCHEDULE)


@pytest.mark.parametrize("calls", [0, 1, 8])
def test_any_number_of_steps_changes_no_weight(calls: int) -> None:
    ours, alone = made(), made()
    scheduler = ours.as_scheduler()
    assert isinstance(scheduler, LRScheduler)
    for gradients in gradient_sets(every_parameter(ours), 14):
        for optimizer in (ours, alone):
            give(every_parameter(optimizer), [g.clone() for g in gradients])
            optimizer.step()
        for _ in range(calls):
            scheduler.step()
    assert [bits(p) for p in every_parameter(ours)] == [bits(p) for p in every_parameter(alone)]
    assert ours.state_dict()["param_groups"] == alone.state_dict()["param_groups"]


def test_the_rate_used_stands_between_the_two_steps_and_the_next_one_after() -> None:
    optimizer = made()
    scheduler = optimizer.as_scheduler()
    for step, gradients in enumerate(gradient_sets(every_parameter(optimizer), 14)):
        rates = [[scale * SCHEDULE(n).lr for scale in (1.0, 2.0)] for n in (step, step + 1)]
        give(every_parameter(optimizer), gradients)
        assert scheduler.get_last_lr() == rates[0]
        optimizer.step()
        assert (scheduler.get_last_lr(), optimizer.last_lr, scheduler.get_lr()) == (rates[0], rates[0], rates[1])
        scheduler.step()
        assert scheduler.get_last_lr() == optimizer.get_last_lr() == rates[1]
        assert scheduler.last_epoch == step + 1


def test_neither_groups_nor_step_are_touched() -> None:
    optimizer = made()
    before = [dict(group) for group in optimizer.param_groups], optimizer.step
    scheduler: Any = optimizer.as_scheduler()
    assert ([dict(group) for group in optimizer.param_groups], optimizer.step) == before
    assert not hasattr(scheduler, "total_steps")
    scheduler.last_epoch, scheduler._step_count = 5, 6
    scheduler.step()
    assert (scheduler.last_epoch, scheduler._step_count) == (6, 7)
    scheduler.step(2)
    assert scheduler.last_epoch == 2


def test_a_state_holds_numbers_only() -> None:
    optimizer = made()
    scheduler = optimizer.as_scheduler()
    for gradients in gradient_sets(every_parameter(optimizer), 4):
        give(every_parameter(optimizer), gradients)
        optimizer.step()
        scheduler.step()
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = made().as_scheduler()
    again.load_state_dict(saved)
    assert (again.get_last_lr(), again.last_epoch) == (scheduler.get_last_lr(), 4)
    del saved["_last_lr"]
    with pytest.raises(ValueError, match="_last_lr"):
        again.load_state_dict(saved)
    assert again.last_epoch == 4


def test_what_the_last_update_used_is_not_what_a_skipped_step_found() -> None:
    optimizer = made()
    assert (optimizer.last_lr, optimizer.last_momentum) == ([None, None], [None, None])
    over = every_parameter(optimizer)
    optimizer.skip_nonfinite = True
    for value in (1.0, 1.0, float("nan")):
        give(over, [torch.full_like(p, value) for p in over])
        optimizer.step()
    lr, momentum = SCHEDULE(1)
    assert (optimizer.last_lr, optimizer.last_momentum) == ([lr, 2.0 * lr], [momentum, momentum])
    optimizer.param_groups[0].update(lr=0.25, momentum=0.5)
    give(over, [torch.ones_like(p) for p in over])
    optimizer.step()
    lr, momentum = SCHEDULE(2)
    assert (optimizer.last_lr, optimizer.last_momentum) == ([0.25, 2.0 * lr], [0.5, momentum])
