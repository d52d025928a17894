"""What CyclicLR refuses, and that nothing has changed then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import Optimizer

from clr_native import CyclicLR, CyclicSchedule, FusedCyclicSGD, OneCycleSchedule, RampSchedule, ScheduleSequence
from schedulers import adam, advance, refused, sgd, weights

CYCLE = CyclicSchedule(1, 5, step_size_up=4, base_momentum=0.25, max_momentum=0.75)


def break_lr(group: dict[str, Any]) -> None:
    del group["lr"]


def break_momentum(group: dict[str, Any]) -> None:
    group.pop("momentum", None)
    group.pop("betas", None)


def no_leaf(group: dict[str, Any]) -> None:
    group["lr"] = torch.tensor(7.0, requires_grad=True)


@pytest.mark.parametrize("optimizer_of", [sgd, adam])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (break_lr, "parameter group 2: has lost its key 'lr'"),
        (break_momentum, "parameter group 2: has lost its key '(momentum|betas)'"),
        (no_leaf, "leaf Variable"),
    ],
)
def test_a_group_that_cannot_be_written_stops_all(
    optimizer_of: Callable[[int], Optimizer], spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    scheduler = CyclicLR(optimizer_of(3), schedule=CYCLE)
    scheduler.optimizer.param_groups[0]["lr"] = torch.tensor(7.0)  # filled first, and then put back
    spoil(scheduler.optimizer.param_groups[2])
    with refused(message, scheduler, error=(ValueError, RuntimeError)):
        scheduler._update_lr()
    assert scheduler.get_last_momentum() == [CYCLE(0).momentum] * 3


@pytest.mark.parametrize("betas", [0.5, (), "0.5", None])
def test_betas_that_are_none_are_refused(betas: Any) -> None:
    scheduler = CyclicLR(adam(2), schedule=CYCLE)
    scheduler.optimizer.param_groups[1]["betas"] = betas
    with refused("parameter group 1: betas=", scheduler):
        scheduler._update_lr()


@pytest.mark.parametrize("base", [tuple, list])
def test_betas_that_cannot_be_read_raise_their_own_error(base: type) -> None:
    def broken(self: object) -> None:
        raise LookupError("no beta")

    scheduler = CyclicLR(adam(), schedule=CYCLE)
    scheduler.optimizer.param_groups[0]["betas"] = type("Broken", (base,), {"__iter__": broken})((0.5, 0.75))
    with pytest.raises(LookupError, match="no beta"):
        scheduler._update_lr()


@pytest.mark.parametrize(
    ("scale_fn", "message"),
    [
        (lambda i: -1.0 if i == 3 else 1.0, r"parameter group 1: lr=-3\.0 at last_epoch=3 must be finite and not"),
        (lambda i: float("nan") if i == 3 else 1.0, "parameter group 1: lr=nan at last_epoch=3"),
        (lambda i: "1" if i == 3 else 1.0, r"scale_fn\(3\)='1' must be a number"),
        (lambda i: 1 / (3 - i), "division by zero"),
    ],
)
def test_a_value_that_cannot_be_written_changes_nothing(scale_fn: Any, message: str) -> None:
    spoiled = CyclicSchedule(1, 5, step_size_up=1, scale_fn=scale_fn, scale_mode="iterations", cycle_momentum=False)
    scheduler = CyclicLR(sgd(2), schedule=[CYCLE, spoiled])
    advance(scheduler, steps=2)
    for _ in range(2):
        with refused(message, scheduler, error=(ValueError, TypeError, ZeroDivisionError)):
            scheduler._update_lr()


def test_momentum_out_of_range_is_refused() -> None:
    scheduler = CyclicLR(sgd(), 1, 5, step_size_up=1, scale_fn=lambda cycle: 9.5)
    with refused(r"parameter group 0: momentum=-0\.0\d+ at last_epoch=1 must be between 0 and 1", scheduler):
        scheduler._update_lr()


def test_there_is_no_step_after_the_last() -> None:
    scheduler = CyclicLR(sgd(), 1, 5, step_size_up=4)
    scheduler.last_epoch = 2**63 - 2
    with refused(r"last_epoch=9223372036854775807 must be from 0 to 2\*\*63 - 2", scheduler):
        scheduler._update_lr()


def test_an_optimizer_without_lr_is_refused() -> None:
    optimizer = sgd(2)
    del optimizer.param_groups[1]["lr"]
    with refused("parameter group 1: SGD has no 'lr'", optimizer):
        CyclicLR(optimizer, 1, 5)


SIZES = "must be a whole number of steps"
BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "no bounds": ({"base_lr": None, "max_lr": None}, "base_lr=None and max_lr=None"),
    "negative size": ({"step_size_up": -1}, f"step_size_up=-1 {SIZES}"),
    "no size": ({"step_size_up": 0}, f"step_size_up=0 {SIZES}"),
    "size that is not whole": ({"step_size_up": 2.5}, rf"step_size_up=2\.5 {SIZES}"),
    "half that is not whole": ({"step_size_down": [4, 2.5]}, rf"parameter group 1: step_size_down=2\.5 {SIZES}"),
    "NaN lr": ({"base_lr": float("nan")}, "base_lr=nan must be"),
    "negative lr": ({"base_lr": [0.1, -0.1]}, r"parameter group 1: base_lr=-0\.1 must be"),
    "momentum above 1": ({"max_momentum": 1.5}, r"max_momentum=1\.5 must be"),
    "bounds the wrong way": ({"base_lr": 9.0}, r"base_lr=9\.0 must not be above max_lr=5\.0"),
    "unknown mode": ({"mode": "sawtooth"}, "mode='sawtooth' must be one of"),
    "unknown scale_mode": ({"scale_mode": "epochs"}, "scale_mode='epochs' must be one of"),
    "unknown window": ({"window": ["welch", "boxcar"]}, "parameter group 1: window='boxcar' must be one of"),
    "array of rates": ({"base_lr": np.array([0.1, 0.2])}, r"base_lr=array\(\[0\.1, 0\.2\]\) must be a number"),
    "too few entries": ({"max_lr": [5.0]}, "max_lr with 1 entries must have one for each of the 2 groups"),
    "too many entries": ({"gamma": (1, 1, 1)}, "gamma with 3 entries"),
    "schedule with other arguments": ({"schedule": CYCLE}, "base_lr=1 cannot be combined with schedule="),
    "schedule that is none": ({"schedule": 3, "base_lr": None, "max_lr": None}, "schedule=3 must be a schedule"),
    "list with one that is none": ({"schedule": [CYCLE, 3], "base_lr": None, "max_lr": None}, "schedule=3 must be"),
    "last_epoch": ({"last_epoch": -2}, "step=-2 must be from 0"),
    "a first value that cannot be": ({"step_size_up": 1, "scale_fn": lambda cycle: -1.0, "last_epoch": 0}, "lr="),
    "last_epoch of another type": ({"last_epoch": 1.5}, r"step=1\.5 must be an int"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_are_refused_by_name(name: str) -> None:
    arguments, message = BAD_ARGUMENTS[name]
    optimizer = sgd(2)
    with refused(message, optimizer):
        CyclicLR(optimizer, **{"base_lr": 1, "max_lr": 5, **arguments})


@pytest.mark.parametrize("kind", [torch.optim.Adagrad, torch.optim.Adadelta])
@pytest.mark.parametrize(
    "schedule",
    [CYCLE, OneCycleSchedule(0.5, 9), ScheduleSequence([(RampSchedule(0, 1, 3), 3), (CYCLE, None)])],
)
def test_momentum_without_a_place_is_refused(kind: Any, schedule: Any) -> None:
    optimizer = kind(weights(1))
    with refused(r"cycle_momentum=True, but Ada.* has neither .* pass cycle_momentum=False", optimizer):
        CyclicLR(optimizer, schedule=schedule)


@pytest.mark.parametrize("optimizer", [None, FusedCyclicSGD([torch.nn.Parameter(torch.ones(3))], 0.1, 0.5)])
def test_other_things_than_torch_optimizers_are_refused(optimizer: Any) -> None:
    with pytest.raises(TypeError, match=r"optimizer=(None must be|FusedCyclicSGD has its own schedule)"):
        CyclicLR(optimizer, 1, 5)
