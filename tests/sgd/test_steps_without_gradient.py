"""Steps that train nothing say so: once, after three in a row that found no gradient."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from clr_native import FusedCyclicSGD
from helpers import give, parameters, picture

BATCH = torch.ones(2, 4)


def ours(params: Any, **settings: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(params, 0.1, 0.5, **settings)


def backward(model: nn.Module) -> None:
    model(BATCH).sum().backward()


def another_models() -> tuple[nn.Module, FusedCyclicSGD]:
    model = nn.Linear(4, 2)
    return copy.deepcopy(model), ours(model.parameters())


def made_before_to_empty() -> tuple[nn.Module, FusedCyclicSGD]:
    with torch.device("meta"):
        model = nn.Linear(4, 2)
    optimizer = ours(model.parameters())
    model.to_empty(device="cpu")
    return model, optimizer


def all_frozen() -> tuple[nn.Module, FusedCyclicSGD]:
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    return model, ours(model[0].parameters())


def averaged() -> tuple[nn.Module, FusedCyclicSGD]:
    model = nn.Linear(4, 2)
    return copy.deepcopy(model), ours(model.parameters(), ema_decay=0.9)


UNTRAINED: dict[str, Callable[[], tuple[nn.Module, FusedCyclicSGD]]] = {
    "another model's parameters": another_models,
    "made before to_empty()": made_before_to_empty,
    "all frozen": all_frozen,
    "averaged": averaged,
}


def told(step: Callable[[], object], steps: int) -> list[tuple[int, str]]:
    """The warnings of each step."""
    found = []
    for number in range(steps):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
        found += [(number, str(warning.message)) for warning in caught]
    return found


@pytest.mark.parametrize("case", UNTRAINED)
def test_the_third_step_says_so_and_no_other(case: str) -> None:
    model, optimizer = UNTRAINED[case]()

    def step() -> None:
        optimizer.zero_grad()
        backward(model)
        optimizer.step()

    ((number, text),) = told(step, 10)
    assert number == 2
    assert "3 steps in a row found no gradient" in text
    assert "construct the optimizer after that, with model.parameters()" in text
    assert ("device=meta" in text) == (case == "made before to_empty()")
    assert optimizer.applied_steps == 10


def test_gradients_thrown_away_before_the_step() -> None:
    model = nn.Linear(4, 2)
    optimizer = ours(model.parameters())

    def step() -> None:
        backward(model)
        optimizer.zero_grad()
        optimizer.step()

    assert [number for number, _ in told(step, 9)] == [2]


def test_released_gradients_are_found() -> None:
    """The suite makes an error of every warning."""
    model = nn.Linear(4, 2)
    optimizer = ours(model.parameters())
    with optimizer.release_gradients():
        for _ in range(6):
            backward(model)
            assert model.weight.grad is None
            optimizer.step()
        assert len(told(optimizer.step, 6)) == 1  # and then none


@pytest.mark.parametrize("groups", [[{"params": []}], [{"params": []}, {"params": []}]], ids=len)
def test_without_parameters_there_is_nothing_to_train(groups: list[dict[str, Any]]) -> None:
    optimizer = ours(groups)
    for _ in range(6):
        optimizer.step()


def test_the_first_group_may_be_empty_under_a_scaler() -> None:
    (weight,) = parameters([3])
    optimizer = ours([{"params": []}, {"params": [weight]}])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    scaler.scale(weight.sum()).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
    scaler.step(optimizer)
    assert optimizer.applied_steps == 1


def test_a_gradient_lets_the_count_start_anew() -> None:
    over = parameters([3, 4])
    optimizer = ours(over)
    for step in range(12):
        give(over, [None, torch.ones(4) if step % 3 == 2 else None])
        optimizer.step()
    give(over, [None, None])
    assert [number for number, _ in told(optimizer.step, 6)] == [2]


def test_a_warning_that_is_an_error_comes_before_the_first_write() -> None:
    over = parameters([3])
    optimizer = ours(over, ema_decay=0.5)
    for _ in range(2):
        optimizer.step()
    before = picture(optimizer)
    with pytest.raises(UserWarning, match="found no gradient"):
        optimizer.step()
    assert picture(optimizer) == before
    for _ in range(6):
        optimizer.step()
    assert optimizer.applied_steps == 8


def test_a_copy_counts_by_itself() -> None:
    """What a warning has said of one optimizer, it has not said of its copy."""
    optimizer = ours(parameters([3]))
    assert len(told(optimizer.step, 5)) == 1
    assert [number for number, _ in told(copy.deepcopy(optimizer).step, 5)] == [2]
