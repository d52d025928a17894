"""torch.distributed.checkpoint's helpers: they round-trip the state and change nothing of a fresh optimizer."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clr_native import CyclicSchedule, FusedCyclicSGD
from distributed import QUIET, asked, put
from helpers import assert_goes_on_alike, assert_same_state, entries, every_parameter, give, go_on, gradient_sets

pytest.importorskip("torch.distributed.checkpoint", reason="this torch was built without torch.distributed")

from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

pytestmark = QUIET
FLAT = pytest.mark.parametrize("flat", [False, True], ids=["nested", "flattened"])


def made(seed: int = 0, **settings: Any) -> tuple[nn.Module, FusedCyclicSGD]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    groups: list[dict[str, Any]] = [
        {"params": list(model[0].parameters())},
        {"params": [*model[1].parameters(), *model[2].parameters()], "max_lr": 0.9},
    ]
    return model, FusedCyclicSGD(groups, **{"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 3} | settings)


PROBED: list[dict[str, Any]] = [
    {},
    {"base_lr": 0.0},
    {"base_lr": 0.0, "max_lr": 0.0},
    {"base_lr": 0.0, "weight_decay": 0.5},
    {"weight_decay": 0.5, "dampening": 0.25},
    {"nesterov": True, "maximize": True, "weight_decay": 0.5},
    {"cycle_momentum": False, "momentum": 0.0},
    {"scale_fn": float},
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
    return model, FusedCyclicSGD([{"params": layer.parameters()} for layer in model], **settings)


@FLAT
@pytest.mark.parametrize("settings", PROBED, ids=str)
def test_a_fresh_optimizer_that_was_asked_goes_on_as_one_that_was_not(settings: dict[str, Any], flat: bool) -> None:
    """Weights, counters and averages; what was loaded into one that was not asked, too."""
    model, optimizer = bare(settings)
    weights, before = copy.deepcopy(model.state_dict()), entries(optimizer)
    asked(model, optimizer, flat=flat)
    assert entries(optimizer) == before
    assert optimizer.applied_steps == optimizer.skipped_steps == 0
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    for attempt in (optimizer.averaged_weights().__enter__, lambda: optimizer.copy_average_to(model)):
        with pytest.raises(RuntimeError, match="no average yet"):
            attempt()
    _, other = bare(settings)
    for each in (optimizer, other):
        go_on(each, 5)
    # A buffer that asking has made takes the first gradient times 1 - dampening, as torch's does.
    if not settings.get("dampening"):
        assert_same_state(optimizer, other)
    twin, loaded = bare(settings)
    twin.load_state_dict(model.state_dict())
    put(twin, loaded, asked(model, optimizer, flat=flat), flat=flat)
    assert_same_state(optimizer, loaded)
    assert_goes_on_alike(optimizer, loaded, 5)


@FLAT
@pytest.mark.parametrize("settings", [{}, {"base_lr": 0.0}, {"cycle_momentum": False}], ids=str)
@pytest.mark.parametrize("before", [0, 1, 5])
def test_round_trip_into_a_fresh_optimizer(before: int, settings: dict[str, Any], flat: bool) -> None:
    """Weights and buffers go on bit for bit; the checkpoint's schedule and position win."""
    model, optimizer = made(window="welch", weight_decay=0.01, **settings)
    go_on(optimizer, before)
    saved = asked(model, optimizer, flat=flat)
    twin, other = made(seed=1, step_size_up=9, mode="triangular2", **settings)
    twin.load_state_dict(model.state_dict())
    weights = copy.deepcopy(twin.state_dict())
    put(twin, other, saved, flat=flat)
    assert all(torch.equal(value, weights[name]) for name, value in twin.state_dict().items())
    assert entries(other) == entries(optimizer)
    assert CyclicSchedule.from_dict(other.param_groups[1]["schedule"]).window == "welch"
    assert_goes_on_alike(optimizer, other, 8)
    assert other.applied_steps == before + 8


@FLAT
def test_round_trip_into_a_trained_optimizer(flat: bool) -> None:
    model, optimizer = made()
    go_on(optimizer, 5)
    optimizer.zero_grad()
    saved_model, saved = copy.deepcopy(model.state_dict()), asked(model, optimizer, flat=flat)
    go_on(optimizer, 3)
    optimizer.zero_grad()
    model.load_state_dict(saved_model)
    put(model, optimizer, saved, flat=flat)
    _, other = made()
    go_on(other, 5)
    assert_goes_on_alike(optimizer, other, 4)


@FLAT
def test_through_files_of_distributed_checkpoint(flat: bool, tmp_path: Path) -> None:
    model, optimizer = made(weight_decay=0.01)
    go_on(optimizer, 5)
    saved = asked(model, optimizer, flat=flat)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "... is not initialized: saving in a single process"
        save(saved, checkpoint_id=tmp_path)
        twin, other = made(seed=1, step_size_up=9)
        twin.load_state_dict(model.state_dict())
        loaded = asked(twin, other, flat=flat)
        load(loaded, checkpoint_id=tmp_path)
    put(twin, other, loaded, flat=flat)
    assert entries(other) == entries(optimizer)
    assert_goes_on_alike(optimizer, other, 4)


def test_a_parameter_that_never_had_a_gradient() -> None:
    """It has no buffer in the checkpoint, but one in the optimizer that loads: torch fills a flat one with {}.

    A nested checkpoint torch refuses itself.
    """
    model, optimizer = made()
    over = every_parameter(optimizer)
    for gradients in gradient_sets(over, 3):
        give(over, [*gradients[:2], None, None, *gradients[4:]])
        optimizer.step()
    optimizer.zero_grad()
    saved = asked(model, optimizer, flat=True)
    twin, other = made()
    twin.load_state_dict(model.state_dict())
    put(twin, other, saved, flat=True)
    assert_goes_on_alike(optimizer, other, 4)


def test_the_argument_is_called_state_dict() -> None:
    """The helpers pass it by name."""
    _, optimizer = made()
    go_on(optimizer, 2)
    _, other = made()
    other.load_state_dict(state_dict=optimizer.state_dict())
    assert other.applied_steps == 2


def test_a_flat_checkpoint_reaches_an_optimizer_whose_first_step_was_skipped() -> None:
    """torch asks for state only where there is none at all: a skipped step leaves no empty entries behind."""
    models = [torch.nn.Linear(3, 2) for _ in range(2)]
    trained, fresh = (FusedCyclicSGD(model.parameters(), 0.1, 0.5, skip_nonfinite=True) for model in models)
    models[0](torch.ones(4, 3)).sum().backward()
    trained.step()
    models[1](torch.full((4, 3), torch.inf)).sum().backward()
    fresh.step()
    assert fresh.last_step_skipped
    assert not fresh.state
    fresh.zero_grad()
    put(models[1], fresh, asked(models[0], trained, flat=True), flat=True)
    buffers = [o.state[m.weight]["momentum_buffer"] for o, m in zip((trained, fresh), models, strict=True)]
    assert torch.equal(*buffers)
    assert fresh.applied_steps == 1
