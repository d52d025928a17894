"""What `repr` and `str` of an optimizer and of a scheduler say: a line a group, of what matters."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch.nn import Parameter, UninitializedParameter

from clr_native import CyclicLR, FusedCyclicSGD, OneCycleSchedule, RampSchedule, ScheduleSequence

SEQUENCE = ScheduleSequence(
    [(RampSchedule(0, 0.1, 100), 100), (OneCycleSchedule(0.1, 5000, convention="fastai"), None)]
)
CYCLE = "CyclicSchedule(0.1, 0.5), lr=0.1, momentum=0.9"


def groups(count: int, **settings: Any) -> list[dict[str, Any]]:
    return [{"params": [Parameter(torch.zeros(2, 32))], **settings} for _ in range(count)]


BOUNDS: dict[str, Any] = {"base_lr": 0.1, "max_lr": 0.5}
OPTIMIZERS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], list[str]]] = {
    "one group": (groups(1), BOUNDS, ["(applied_steps=0)", f"group 0: {CYCLE}; 1 tensor, 64 elements"]),
    "a rate alone": (
        groups(1),
        {"lr": 1 / 3},
        ["(applied_steps=0)", "group 0: lr=0.333333, momentum=0.9; 1 tensor, 64"],
    ),
    "settings": (
        groups(1, weight_decay=1e-4) + groups(1, weight_decay=torch.tensor(0.5), nesterov=True),
        BOUNDS | {"max_grad_norm": math.inf, "skip_nonfinite": True, "ema_decay": 0.99, "dampening": 0},
        [
            "(applied_steps=0, max_grad_norm=inf, skip_nonfinite=True)",
            f"group 0: {CYCLE}, weight_decay=0.0001, ema_decay=0.99; 1",
            f"group 1: {CYCLE}, weight_decay=0.5, nesterov=True, ema_decay=0.99; 1",
        ],
    ),
    "many alike": (
        groups(1) + groups(999, weight_decay=1.0) + groups(1),
        BOUNDS,
        [
            "(applied_steps=0)",
            f"group 0: {CYCLE}; 1 tensor, 64 elements",
            f"groups 1 to 999: {CYCLE}, weight_decay=1; 999 tensors, 63,936 elements",
            f"group 1000: {CYCLE}; 1 tensor, 64 elements",
        ],
    ),
    "many that differ": (
        [group for i in range(100) for group in groups(1, weight_decay=float(i))],
        BOUNDS,
        [
            "(applied_steps=0)",
            f"group 0: {CYCLE}; 1",
            *(f"group {i}: {CYCLE}, weight_decay={i}; 1" for i in range(1, 13)),
            "... 86 more lines",
            f"group 99: {CYCLE}, weight_decay=99; 1",
        ],
    ),
    "a long schedule, no size yet": (
        [{"params": [UninitializedParameter()]}],
        {"schedule": SEQUENCE},
        ["(applied_steps=0)", "group 0: ScheduleSequence([(RampSchedule(0.0, 0.1, 100), ...Schedule(0.1, 5000, conv"],
    ),
}


def check(shown: str, name: str, expected: list[str]) -> None:
    title, *lines = shown.split("\n")
    assert title == name + expected[0]
    assert len(lines) == len(expected) - 1
    for line, begins in zip(lines, expected[1:], strict=True):
        assert line.startswith(f"  {begins}")


@pytest.mark.parametrize(("params", "settings", "expected"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_optimizer(params: Any, settings: dict[str, Any], expected: list[str]) -> None:
    optimizer = FusedCyclicSGD(params, **settings)
    check(repr(optimizer), "FusedCyclicSGD", expected)
    assert str(optimizer) == repr(optimizer)
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert repr(copied) == repr(optimizer)


def test_an_optimizer_on_its_way() -> None:
    optimizer = FusedCyclicSGD(groups(2), **BOUNDS, skip_nonfinite=True)
    parameters = [group["params"][0] for group in optimizer.param_groups]
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        optimizer.param_groups[1]["lr"] = 0.25
    parameters[0].grad = torch.full_like(parameters[0], math.nan)
    optimizer.step()
    moved = "CyclicSchedule(0.1, 0.5), lr=0.1004, momentum=0.8999; 1 tensor"
    held = "CyclicSchedule(0.1, 0.5), lr=0.25, momentum=0.89995, applied_steps=1; 1 tensor"
    expected = ["(applied_steps=2, skipped_steps=1, skip_nonfinite=True)", f"group 0: {moved}", f"group 1: {held}"]
    check(repr(optimizer), "FusedCyclicSGD", expected)


@pytest.mark.parametrize("schedule", [3, {"kind": "unknown"}, {}])
def test_what_the_next_step_refuses_is_shown(schedule: object) -> None:
    optimizer = FusedCyclicSGD(groups(1), **BOUNDS)
    optimizer.param_groups[0]["schedule"] = schedule
    check(repr(optimizer), "FusedCyclicSGD", ["(applied_steps=0)", f"group 0: {schedule!r}, lr=0.1"])
    with pytest.raises((TypeError, ValueError)):
        optimizer.step()


@pytest.mark.parametrize(
    ("optimizer", "settings", "expected"),
    [
        (torch.optim.SGD, BOUNDS, ["(SGD, last_epoch=0)", f"groups 0 to 2: {CYCLE}"]),
        (
            torch.optim.Adam,
            BOUNDS | {"max_lr": [0.5, 0.25, 0.25]},
            ["(Adam, last_epoch=0)", f"group 0: {CYCLE}", f"groups 1 to 2: {CYCLE.replace('0.5', '0.25')}"],
        ),
        (
            torch.optim.RMSprop,
            {"schedule": RampSchedule(0.125, 1, 8)},
            ["(RMSprop, last_epoch=0)", "groups 0 to 2: RampSchedule(0.125, 1.0, 8), lr=0.125"],
        ),
    ],
)
def test_a_scheduler(optimizer: type[Any], settings: dict[str, Any], expected: list[str]) -> None:
    scheduler = CyclicLR(
        optimizer(groups(3), lr=0.1, **({"momentum": 0.5} if optimizer.__name__ != "Adam" else {})), **settings
    )
    assert repr(scheduler) == str(scheduler) == "\n  ".join([f"CyclicLR{expected[0]}", *expected[1:]])
    scheduler.optimizer.step()
    scheduler.step()
    assert repr(scheduler).startswith(f"CyclicLR({optimizer.__name__}, last_epoch=1)\n")


def test_a_scheduler_that_is_not_made_yet() -> None:
    assert repr(CyclicLR.__new__(CyclicLR)).startswith("<clr_native.scheduler.cyclic_lr.CyclicLR object at")
