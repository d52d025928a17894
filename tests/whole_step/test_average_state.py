"""Averages are saved, loaded, copied and pickled: training goes on bit for bit, through torch.distributed too."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from clr_native import FusedCyclicSGD
from helpers import assert_same_training, every_parameter, gradient_sets, parameters, raised, train
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


def go_on(optimizer: FusedCyclicSGD, steps: int) -> None:
    over = every_parameter(optimizer)
    train(optimizer, over, gradient_sets(over), steps, optimizer.applied_steps)


def counts(optimizer: FusedCyclicSGD) -> list[int]:
    return [group["n_averaged"] for group in optimizer.param_groups]


def assert_same(first: FusedCyclicSGD, second: FusedCyclicSGD) -> None:
    assert_same_training(first, second)
    assert averages(first) == averages(second)
    assert counts(first) == counts(second)


def with_weights_of(optimizer: FusedCyclicSGD, **settings: Any) -> FusedCyclicSGD:
    other = fresh(**settings)
    with torch.no_grad():
        for p, q in zip(every_parameter(other), every_parameter(optimizer), strict=True):
            p.copy_(q)
    return other


def loaded(optimizer: FusedCyclicSGD) -> FusedCyclicSGD:
    """By an optimizer that was told nothing of averages."""
    other = with_weights_of(optimizer)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return other


def loaded_from_a_file(optimizer: FusedCyclicSGD) -> FusedCyclicSGD:
    """By one that has averages of another kind."""
    other = with_weights_of(optimizer, ema_decay=0.5)
    go_on(other, 3)
    with torch.no_grad():
        for p, q in zip(every_parameter(other), every_parameter(optimizer), strict=True):
            p.copy_(q)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


def pickled(optimizer: FusedCyclicSGD) -> FusedCyclicSGD:
    copied: FusedCyclicSGD = pickle.loads(pickle.dumps(optimizer))
    return copied


@pytest.mark.parametrize("copied", [loaded, loaded_from_a_file, copy.deepcopy, pickled])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_goes_on_bit_for_bit(
    settings: dict[str, Any], steps: int, copied: Callable[[FusedCyclicSGD], FusedCyclicSGD]
) -> None:
    optimizer = fresh(**settings)
    go_on(optimizer, steps)
    other = copied(optimizer)
    assert_same(optimizer, other)
    for _ in range(CYCLE + 1):
        go_on(optimizer, 1)
        assert averages(optimizer) != averages(other) or settings == {"average": "swa"}
        go_on(other, 1)
        assert_same(optimizer, other)
    assert counts(optimizer)[0] > 0
    assert counts(optimizer)[1] == 0


def test_nothing_is_shared_with_what_was_loaded() -> None:
    optimizer = fresh(ema_decay=0.75)
    go_on(optimizer, 3)
    saved = optimizer.state_dict()
    other = with_weights_of(optimizer)
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
    """At the next step, by name, with nothing changed."""
    optimizer = fresh(ema_decay=0.75)
    go_on(optimizer, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    if name == "average":
        saved["state"][1]["average"] = torch.ones(3, dtype=torch.float64)
    else:
        saved["param_groups"][0]["n_averaged"] = -1
    weights = [p.detach().clone() for p in every_parameter(optimizer)]

    def load_and_go_on() -> None:
        optimizer.load_state_dict(saved)
        optimizer.step()

    error = raised(load_and_go_on)
    assert isinstance(error, ValueError)
    assert name in str(error)
    assert all(torch.equal(p, q) for p, q in zip(every_parameter(optimizer), weights, strict=True))


# --- torch.distributed --------------------------------------------------------------------------------------


def state_of(model: nn.Module, optimizer: FusedCyclicSGD, *, flat: bool) -> Any:
    state_dict = pytest.importorskip(
        "torch.distributed.checkpoint.state_dict", reason="this torch was built without torch.distributed"
    )
    options = state_dict.StateDictOptions(flatten_optimizer_state_dict=flat)
    return copy.deepcopy(state_dict.get_optimizer_state_dict(model, optimizer, options=options))


def set_state(model: nn.Module, optimizer: FusedCyclicSGD, saved: Any, *, flat: bool) -> None:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    set_optimizer_state_dict(model, optimizer, saved, options=StateDictOptions(flatten_optimizer_state_dict=flat))


def made(**settings: Any) -> tuple[nn.Module, FusedCyclicSGD]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    groups: list[dict[str, Any]] = [{"params": model[0].parameters()}, {"params": model[1].parameters()}]
    return model, FusedCyclicSGD(groups, 0.1, 0.5, step_size_up=CYCLE // 2, **settings)


@pytest.mark.filterwarnings("ignore::FutureWarning:torch.distributed")
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_asking_a_fresh_optimizer_for_its_state_changes_nothing(settings: dict[str, Any], flat: bool) -> None:
    """Neither weights nor counts nor anything later; and there is no average to be had."""
    model, optimizer = made(**settings)
    _, other = made(**settings)
    state_of(model, optimizer, flat=flat)
    assert counts(optimizer) == [0, 0]
    assert optimizer.applied_steps == 0
    for attempt in (optimizer.averaged_weights().__enter__, lambda: optimizer.copy_average_to(model)):
        assert "no average yet" in str(raised(attempt))
    for _ in range(2 * CYCLE):
        go_on(optimizer, 1)
        go_on(other, 1)
        assert_same_training(optimizer, other)
        assert counts(optimizer) == counts(other)
        if counts(other)[0]:
            assert averages(optimizer) == averages(other)
        else:
            assert "no average yet" in str(raised(optimizer.averaged_weights().__enter__))


@pytest.mark.filterwarnings("ignore::FutureWarning:torch.distributed")
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_round_trip_into_a_fresh_optimizer(settings: dict[str, Any], steps: int, flat: bool) -> None:
    model, optimizer = made(**settings)
    go_on(optimizer, steps)
    optimizer.zero_grad()
    saved = state_of(model, optimizer, flat=flat)
    twin, other = made(**settings)
    twin.load_state_dict(model.state_dict())
    set_state(twin, other, saved, flat=flat)
    assert counts(other) == counts(optimizer)
    for _ in range(CYCLE + 1):
        go_on(optimizer, 1)
        go_on(other, 1)
        assert_same_training(optimizer, other)
        assert counts(optimizer) == counts(other)
        if counts(other)[0]:
            assert averages(optimizer) == averages(other)
    assert counts(other)[0] > 0
