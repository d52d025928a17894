"""Averages are saved, loaded, copied and pickled: training goes on bit for bit, through torch.distributed too."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from clr_native import FusedCyclicSGD
from distributed import QUIET, asked, put
from helpers import (
    COPIES,
    assert_goes_on_alike,
    assert_refused,
    assert_same_state,
    assert_same_training,
    go_on,
    parameters,
    raised,
    take_weights,
    through_a_file,
)
from test_average import CYCLE, averages

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SETTINGS: list[dict[str, Any]] = [
    {"ema_decay": 0.75},
    {"ema_decay": 0.9, "ema_warmup": True},
    {"average": "swa"},
]
# Before the first step, before and after the first cycle's end, and later.
STEPS = (0, 1, CYCLE - 1, CYCLE, 2 * CYCLE + 1)


def fresh(**settings: Any) -> FusedCyclicSGD:
    """Two groups of all types, one without an average."""
    groups: list[dict[str, Any]] = [
        {"params": [parameters([(7, 5)], dtype)[0] for dtype in DTYPES]},
        {"params": parameters([(3, 2, 2, 2)]), "ema_decay": None, "ema_warmup": False, "average": None},
    ]
    groups[0]["params"][0].data = groups[0]["params"][0].detach().t().contiguous().t()
    return FusedCyclicSGD(groups, 0.1, 0.5, step_size_up=CYCLE // 2, **settings)


def counts(optimizer: FusedCyclicSGD) -> list[int]:
    return [group["n_averaged"] for group in optimizer.param_groups]


def loaded(optimizer: FusedCyclicSGD, **settings: Any) -> FusedCyclicSGD:
    """By an optimizer that was told nothing of averages, or has those of these settings."""
    other = fresh(**settings)
    go_on(other, 3 if settings else 0)
    take_weights(other, optimizer)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    return other


WAYS: dict[str, Callable[[FusedCyclicSGD], FusedCyclicSGD]] = {
    **COPIES,
    "loaded": loaded,
    "loaded into another kind": lambda optimizer: loaded(optimizer, ema_decay=0.5),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_goes_on_bit_for_bit(settings: dict[str, Any], steps: int, way: str) -> None:
    optimizer = fresh(**settings)
    go_on(optimizer, steps)
    other = WAYS[way](optimizer)
    assert_same_state(optimizer, other)
    before = averages(optimizer)
    go_on(other, seed=8)
    assert averages(optimizer) == before, "a copy shares nothing"
    go_on(optimizer, seed=8)
    assert_goes_on_alike(optimizer, other, CYCLE)
    assert counts(optimizer)[0] > 0
    assert counts(optimizer)[1] == 0


def test_nothing_is_shared_with_what_was_loaded() -> None:
    optimizer = fresh(ema_decay=0.75)
    go_on(optimizer, 3)
    saved = optimizer.state_dict()
    other = fresh()
    take_weights(other, optimizer)
    other.load_state_dict(saved)
    before = averages(other)
    go_on(optimizer, 3)
    assert averages(other) == before != averages(optimizer)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_seek_leaves_averages_alone(settings: dict[str, Any]) -> None:
    optimizer = fresh(**settings)
    go_on(optimizer, 2 * CYCLE)
    before = averages(optimizer), counts(optimizer)
    optimizer.seek(CYCLE - 1)
    assert (averages(optimizer), counts(optimizer)) == before
    go_on(optimizer, 1)
    assert counts(optimizer)[0] == before[1][0] + 1
    assert averages(optimizer) != before[0]


@pytest.mark.parametrize("name", ["average", "n_averaged"])
def test_what_does_not_fit_is_refused(name: str) -> None:
    """By name, with nothing changed."""
    optimizer = fresh(ema_decay=0.75)
    go_on(optimizer, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    if name == "average":
        saved["state"][1]["average"] = torch.ones(3, dtype=torch.float64)
    else:
        saved["param_groups"][0]["n_averaged"] = -1
    assert_refused(lambda: optimizer.load_state_dict(saved), ValueError, name, optimizer)


# --- torch.distributed --------------------------------------------------------------------------------------


def made(**settings: Any) -> tuple[nn.Module, FusedCyclicSGD]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    groups: list[dict[str, Any]] = [{"params": model[0].parameters()}, {"params": model[1].parameters()}]
    return model, FusedCyclicSGD(groups, 0.1, 0.5, step_size_up=CYCLE // 2, **settings)


@QUIET
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_round_trip_into_a_fresh_optimizer(settings: dict[str, Any], steps: int, flat: bool) -> None:
    """Asking makes averages of zeros, which nobody sees before the first update that counts."""
    model, optimizer = made(**settings)
    go_on(optimizer, steps)
    optimizer.zero_grad()
    saved = asked(model, optimizer, flat=flat)
    twin, other = made(**settings)
    twin.load_state_dict(model.state_dict())
    put(twin, other, saved, flat=flat)
    for _ in range(CYCLE + 1):
        assert counts(optimizer) == counts(other)
        if counts(other)[0]:
            assert averages(optimizer) == averages(other)
        else:
            assert "no average yet" in str(raised(other.averaged_weights().__enter__))
        for each in (optimizer, other):
            go_on(each, start=each.applied_steps)
        assert_same_training(optimizer, other)
    assert counts(other)[0] > 0
