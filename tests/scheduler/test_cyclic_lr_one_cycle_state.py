"""A state of torch's OneCycleLR loaded into CyclicLR: the run goes on as torch's would have."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from clr_native import CyclicLR, OneCycleSchedule
from schedulers import adam, advance, refused, sgd, values

STEPS = 30
ARGUMENTS: dict[str, dict[str, Any]] = {
    "cos": {},
    "three linear phases": {"three_phase": True, "anneal_strategy": "linear", "pct_start": 0.4},
    "without momentum": {"cycle_momentum": False, "div_factor": 3.0, "final_div_factor": 50.0},
}


def saved(optimizer_of: Callable[[int], Optimizer], arguments: dict[str, Any]) -> tuple[Optimizer, OneCycleLR]:
    optimizer = optimizer_of(2)
    scheduler = OneCycleLR(optimizer, [0.1, 0.5], total_steps=STEPS, max_momentum=[0.9, 1.0], **arguments)
    advance(scheduler, steps=5)
    return optimizer, scheduler


@pytest.mark.parametrize("optimizer_of", [sgd, adam])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_it_goes_on_to_the_end(name: str, optimizer_of: Callable[[int], Optimizer]) -> None:
    theirs, reference = saved(optimizer_of, ARGUMENTS[name])
    scheduler = CyclicLR(optimizer_of(2), schedule=OneCycleSchedule(0.2, 10))
    scheduler.optimizer.load_state_dict(theirs.state_dict())
    state = reference.state_dict()
    before = copy.deepcopy(state)
    scheduler.load_state_dict(state)
    assert state == before
    assert scheduler.last_epoch == 5
    for step in range(5, STEPS):
        for own, other, max_lr in zip(values(scheduler), values(theirs), (0.1, 0.5), strict=True):
            assert abs(own[0] - other[0]) <= 2**-51 * max_lr
            assert abs(own[1] - other[1]) <= 2**-51
        if step + 1 < STEPS:
            advance(reference, scheduler)


def test_without_the_optimizers_state_it_is_refused() -> None:
    """The rates stand there alone."""
    _, reference = saved(sgd, {})
    scheduler = CyclicLR(sgd(2), schedule=OneCycleSchedule(0.2, 10))
    with refused(r"parameter group 0: max_lr=None: .* load that one's state first", scheduler):
        scheduler.load_state_dict(reference.state_dict())


@pytest.mark.parametrize("key", ["total_steps", "_anneal_func_type", "cycle_momentum"])
def test_a_state_in_part_is_refused(key: str) -> None:
    optimizer, reference = saved(sgd, {})
    state = {name: value for name, value in reference.state_dict().items() if name != key}
    with pytest.raises(ValueError, match=f"state_dict is not complete: KeyError.'{key}'"):
        CyclicLR(optimizer, schedule=OneCycleSchedule(0.2, 10)).load_state_dict(state)
