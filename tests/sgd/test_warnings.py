"""Every warning of the package points at the line that a user wrote, whichever call it comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR, LambdaLR, SequentialLR

from clr_native import CyclicLR, CyclicSchedule, FusedCyclicSGD, GradScaler, OneCycleSchedule
from clr_native.schedules import Schedule

END = 3
SHORT = OneCycleSchedule(0.5, END)


def scheduler(epoch: int = END - 1) -> CyclicLR:
    """One whose next batch is past the end of its schedule; at END it stands there already."""
    made = CyclicLR(SGD([torch.nn.Parameter(torch.zeros(2))], momentum=0.9), schedule=SHORT)
    made.optimizer.step()
    made.last_epoch = epoch
    return made


def state() -> dict[str, Any]:
    return {**scheduler().state_dict(), "last_epoch": END, "in_charge": True}


def optimizer(schedule: Schedule = SHORT, steps: int = END, gradient: bool = True) -> FusedCyclicSGD:
    weight = torch.nn.Parameter(torch.zeros(2))
    made = FusedCyclicSGD([weight], schedule=schedule)
    weight.grad = torch.ones(2) if gradient else None
    for _ in range(steps):
        made.step()
    return made


def hooked() -> FusedCyclicSGD:
    made = optimizer()
    made.register_step_post_hook(lambda *_: None)
    return made


def rewritten(written: object) -> FusedCyclicSGD:
    made = optimizer()
    made.param_groups[0]["schedule"] = written
    return made


def fresh() -> SGD:
    made = SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1, momentum=0.9)
    made.param_groups[0]["initial_lr"] = 0.1
    return made


def in_sequence() -> SequentialLR:
    sgd = fresh()
    made = SequentialLR(sgd, [ConstantLR(sgd, 1.0, 1), CyclicLR(sgd, schedule=SHORT)], [1])
    for _ in range(END):
        sgd.step()
        made.step()
    sgd.step()
    return made


def driven() -> FusedCyclicSGD:
    made = optimizer(CYCLES, 0)
    driver = LambdaLR(made, lambda epoch: 1 / (1 + epoch))
    for _ in range(10):
        made.step()
        driver.step()
    return made


CYCLES = CyclicSchedule(0.1, 0.5)
PAST = "is past the end of its schedule"

# What is made before, the call on a line of its own, and what it warns of.
CASES: dict[str, tuple[Callable[[], Any], Callable[[Any], object], str]] = {
    "CyclicLR.step": (scheduler, lambda made: made.step(), PAST),
    "CyclicLR.get_lr": (lambda: scheduler(END), lambda made: made.get_lr(), PAST),
    "CyclicLR.load_state_dict": (scheduler, lambda made: made.load_state_dict(state()), PAST),
    "CyclicLR.schedules": (lambda: scheduler(END), lambda made: setattr(made, "schedules", SHORT), PAST),
    "FusedCyclicSGD.step": (optimizer, lambda made: made.step(), PAST),
    "with a closure": (optimizer, lambda made: made.step(lambda: 1.0), PAST),
    "with hooks": (hooked, lambda made: made.step(), PAST),
    "with a new schedule": (lambda: rewritten(SHORT.to_dict()), lambda made: made.step(), PAST),
    "by torch's GradScaler": (optimizer, lambda made: torch.amp.GradScaler("cpu", enabled=False).step(made), PAST),
    "by our GradScaler": (optimizer, lambda made: GradScaler("cpu", enabled=False).step(made), PAST),
    "constructor": (fresh, lambda made: CyclicLR(made, schedule=SHORT, last_epoch=END - 1), PAST),
    "SequentialLR": (in_sequence, lambda made: made.step(), PAST),
    "driven by torch": (driven, lambda made: made.step(), "something else has written lr"),
    "without gradients": (lambda: optimizer(CYCLES, 2, gradient=False), lambda made: made.step(), "found no gradient"),
}


@pytest.mark.parametrize(("make", "call", "words"), CASES.values(), ids=CASES)
def test_a_warning_points_at_the_call(make: Callable[[], Any], call: Callable[[Any], object], words: str) -> None:
    made = make()
    with pytest.warns(UserWarning, match=words) as caught:
        call(made)
    places = [(warning.filename, warning.lineno) for warning in caught]
    assert places == [(__file__, call.__code__.co_firstlineno)]
