"""torch.distributed.checkpoint's helpers: they round-trip the state and change nothing of a fresh optimizer."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clr_native import CyclicSchedule, FusedCyclicSGD
from helpers import assert_same_training, every_parameter, give, gradient_sets, train

pytest.importorskip("torch.distributed.checkpoint", reason="this torch was built without torch.distributed")

from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

LAYOUTS = {
    "nested": StateDictOptions(),
    "flattened": StateDictOptions(flatten_optimizer_state_dict=True),
}


@pytest.fixture(autouse=True)
def quiet_torch() -> Iterator[None]:
    """Its own deprecations, of itself by itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
        yield


def made(seed: int = 0, **settings: Any) -> tuple[nn.Module, FusedCyclicSGD]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    groups: list[dict[str, Any]] = [
        {"params": list(model[0].parameters())},
        {"params": [*model[1].parameters(), *model[2].parameters()], "max_lr": 0.9},
    ]
    return model, FusedCyclicSGD(groups, **{"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 3} | settings)


def steps(optimizer: FusedCyclicSGD, count: int) -> None:
    over = every_parameter(optimizer)
    train(optimizer, over, gradient_sets(over), count)
    optimizer.zero_grad()


def numbers(optimizer: FusedCyclicSGD) -> list[dict[str, Any]]:
    return copy.deepcopy([{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"base_lr": 0.0},
        {"base_lr": 0.0, "max_lr": 0.0},
        {"weight_decay": 0.5, "dampening": 0.25},
        {"nesterov": True, "maximize": True, "weight_decay": 0.5},
        {"cycle_momentum": False, "momentum": 0.0},
        {"scale_fn": float},
    ],
    ids=str,
)
def test_asking_a_fresh_optimizer_changes_no_weight_and_no_counter(settings: dict[str, Any], layout: str) -> None:
    model, optimizer = made(**settings)
    weights = copy.deepcopy(model.state_dict())
    before = numbers(optimizer)
    get_optimizer_state_dict(model, optimizer, options=LAYOUTS[layout])
    assert numbers(optimizer) == before
    assert optimizer.applied_steps == optimizer.skipped_steps == 0
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    steps(optimizer, 1)
    assert optimizer.applied_steps == 1


PROBED: list[dict[str, Any]] = [
    {},
    {"base_lr": 0.0, "weight_decay": 0.5},
    {"trust_coefficient": 0.01, "weight_decay": 0.5},
    {"ema_decay": 0.9, "ema_warmup": True},
    {"average": "swa"},
    {"dtype": torch.bfloat16, "rounding": "stochastic", "ema_decay": 0.5},
    {"dtype": torch.bfloat16, "kahan": True, "weight_decay": 0.5},
    {"dtype": torch.bfloat16, "master_weights": True},
    {"lr": 0.1, "weight_decay": 0.5},
    {"lr": 0.0, "momentum": 0.0},
]


def bare(settings: dict[str, Any]) -> tuple[nn.Module, FusedCyclicSGD]:
    """Without batch norm, whose statistics other steps would move."""
    torch.manual_seed(0)
    settings = dict(settings)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).to(settings.pop("dtype", torch.float32))
    if "lr" not in settings:
        settings = {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 2, **settings}
    return model, FusedCyclicSGD(model.parameters(), **settings)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("settings", PROBED, ids=str)
def test_a_fresh_optimizer_that_was_asked_goes_on_as_one_that_was_not(settings: dict[str, Any], layout: str) -> None:
    """Weights, counters and averages; what was loaded into one that was not asked, too."""
    model, optimizer = bare(settings)
    weights, before = copy.deepcopy(model.state_dict()), numbers(optimizer)
    get_optimizer_state_dict(model, optimizer, options=LAYOUTS[layout])
    assert numbers(optimizer) == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match="no average yet"):
        optimizer.averaged_weights().__enter__()
    _, other = bare(settings)
    for each in (optimizer, other):
        steps(each, 5)
    assert_same_training(optimizer, other)
    assert numbers(optimizer) == numbers(other)
    for p, q in zip(every_parameter(optimizer), every_parameter(other), strict=True):
        entries = [each.state[parameter] for each, parameter in ((optimizer, p), (other, q))]
        assert entries[0].keys() == entries[1].keys()
        assert all(value is None or torch.equal(value, entries[1][name]) for name, value in entries[0].items())
    twin, loaded = bare(settings)
    twin.load_state_dict(model.state_dict())
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=LAYOUTS[layout]))
    set_optimizer_state_dict(twin, loaded, saved, options=LAYOUTS[layout])
    assert numbers(loaded) == numbers(optimizer)
    for each in (optimizer, loaded):
        steps(each, 5)
    assert_same_training(optimizer, loaded)
    assert numbers(loaded) == numbers(optimizer)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("settings", [{}, {"base_lr": 0.0}, {"cycle_momentum": False}], ids=str)
@pytest.mark.parametrize("before", [0, 1, 5])
def test_round_trip_into_a_fresh_optimizer(before: int, settings: dict[str, Any], layout: str) -> None:
    """Weights and buffers go on bit for bit; the checkpoint's schedule and position win."""
    model, optimizer = made(window="welch", weight_decay=0.01, **settings)
    steps(optimizer, before)
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=LAYOUTS[layout]))
    twin, other = made(seed=1, step_size_up=9, mode="triangular2", **settings)
    twin.load_state_dict(model.state_dict())
    weights = copy.deepcopy(twin.state_dict())
    set_optimizer_state_dict(twin, other, saved, options=LAYOUTS[layout])
    assert all(torch.equal(value, weights[name]) for name, value in twin.state_dict().items())
    assert numbers(other) == numbers(optimizer)
    assert CyclicSchedule.from_dict(other.param_groups[1]["schedule"]).window == "welch"
    for _ in range(2):
        steps(optimizer, 4)
        steps(other, 4)
        assert_same_training(optimizer, other)
    assert other.applied_steps == before + 8


@pytest.mark.parametrize("layout", LAYOUTS)
def test_round_trip_into_a_trained_optimizer(layout: str) -> None:
    model, optimizer = made()
    steps(optimizer, 5)
    saved_model, saved = copy.deepcopy(get_state_dict(model, optimizer, options=LAYOUTS[layout]))
    steps(optimizer, 3)
    set_state_dict(model, optimizer, model_state_dict=saved_model, optim_state_dict=saved, options=LAYOUTS[layout])
    _, other = made()
    steps(other, 5)
    steps(optimizer, 4)
    steps(other, 4)
    assert_same_training(optimizer, other)
    assert numbers(optimizer) == numbers(other)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_through_files_of_distributed_checkpoint(layout: str, tmp_path: Path) -> None:
    model, optimizer = made(weight_decay=0.01)
    steps(optimizer, 5)
    saved = get_optimizer_state_dict(model, optimizer, options=LAYOUTS[layout])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "... is not initialized: saving in a single process"
        save(saved, checkpoint_id=tmp_path)
        twin, other = made(seed=1, step_size_up=9)
        twin.load_state_dict(model.state_dict())
        loaded = get_optimizer_state_dict(twin, other, options=LAYOUTS[layout])
        load(loaded, checkpoint_id=tmp_path)
    set_optimizer_state_dict(twin, other, loaded, options=LAYOUTS[layout])
    assert numbers(other) == numbers(optimizer)
    steps(optimizer, 4)
    steps(other, 4)
    assert_same_training(optimizer, other)


def test_a_parameter_that_never_had_a_gradient() -> None:
    """It has no buffer in the checkpoint, but one in the optimizer that loads: torch fills a flat one with {}.

    A nested checkpoint torch refuses itself.
    """
    flat = LAYOUTS["flattened"]
    model, optimizer = made()
    over = every_parameter(optimizer)
    for gradients in gradient_sets(over, 3):
        give(over, [*gradients[:2], None, None, *gradients[4:]])
        optimizer.step()
    optimizer.zero_grad()
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=flat))
    twin, other = made()
    twin.load_state_dict(model.state_dict())
    set_optimizer_state_dict(twin, other, saved, options=flat)
    steps(optimizer, 4)
    steps(other, 4)
    assert_same_training(optimizer, other)


def test_the_argument_is_called_state_dict() -> None:
    """The helpers pass it by name."""
    _, optimizer = made()
    steps(optimizer, 2)
    _, other = made()
    other.load_state_dict(state_dict=optimizer.state_dict())
    assert other.applied_steps == 2


def test_a_flat_checkpoint_reaches_an_optimizer_whose_first_step_was_skipped() -> None:
    """torch asks for state only where there is none at all: a skipped step leaves no empty entries behind."""
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    models = [torch.nn.Linear(3, 2) for _ in range(2)]
    trained, fresh = (FusedCyclicSGD(model.parameters(), 0.1, 0.5, skip_nonfinite=True) for model in models)
    models[0](torch.ones(4, 3)).sum().backward()
    trained.step()
    models[1](torch.full((4, 3), torch.inf)).sum().backward()
    fresh.step()
    assert fresh.last_step_skipped
    assert not fresh.state
    fresh.zero_grad()
    saved = get_optimizer_state_dict(models[0], trained, options=options)
    set_optimizer_state_dict(models[1], fresh, saved, options=options)
    buffers = [o.state[m.weight]["momentum_buffer"] for o, m in zip((trained, fresh), models, strict=True)]
    assert torch.equal(*buffers)
    assert fresh.applied_steps == 1
