"""What a range test refuses, and what it shows on a terminal."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import pytest
import rich.console
import torch
from torch.optim import SGD

from clr_native import CyclicSchedule, RangeTestResult, lr_range_test
from helpers import case_name
from range_helpers import Batch, batches, linear, mse, quick, trial

DATA = batches(dtype=torch.float64)


def one_walk() -> Iterator[Batch]:
    yield from DATA[:2]


def broken(*_: object) -> NoReturn:
    raise AssertionError("must not be called")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_steps": 1}, ValueError, "num_steps=1 must be at least 2"),
        ({"num_steps": 2.5}, ValueError, "num_steps=2.5 must be a whole number"),
        ({"start_lr": 0.2}, ValueError, "end_lr=0.1 must be above start_lr=0.2"),
        ({"start_lr": 0.0}, ValueError, "start_lr=0.0 must be above 0"),
        ({"ramp": "cosine"}, ValueError, "ramp='cosine' must be one of"),
        ({"momentum": 1.5}, ValueError, "momentum=1.5 must be"),
        ({"repeats": 0}, ValueError, "repeats=0 must be a whole number"),
        ({"accumulate": 0}, ValueError, "accumulate=0 must be a whole number"),
        ({"val_every": 2}, ValueError, "val_every=2 has no meaning without val_loader"),
        ({"stop_factor": 0.0}, ValueError, "stop_factor=0.0 must be above 0"),
        ({"stop_factor": math.nan}, ValueError, "stop_factor=nan must be above 0"),
        ({"stop_factor": "4"}, TypeError, "stop_factor='4' must be a number"),
        ({"progress": 1}, TypeError, "progress=1 must be True or False"),
        ({"loss_fn": None}, ValueError, "loss_fn=None: pass"),
        ({"loss_fn": 3}, TypeError, "loss_fn=3 must be a function"),
        ({"metric": 3}, TypeError, "metric=3 must be a function"),
        ({"step_fn": broken}, ValueError, "is not used with step_fn or train_step: leave it out"),
        ({"step_fn": broken, "train_step": broken}, ValueError, "step_fn and train_step were both given"),
        ({"loss_fn": None, "train_step": broken, "accumulate": 2}, ValueError, "accumulate=2 has no meaning"),
        ({"loss_fn": None, "train_step": broken, "val_loader": DATA}, ValueError, "val_loader= has no meaning"),
        ({"model": 3}, TypeError, "model=3 must be a torch.nn.Module"),
        ({"optimizer": 3}, TypeError, "optimizer=3 must be a torch.optim.Optimizer"),
        ({"loader": []}, ValueError, r"loader=\[\] gives no batch"),
        ({"loader": [{"x": 1}]}, TypeError, "loader gives a dict of 1 where"),
        ({"loader": [(1, 2, 3)]}, TypeError, "loader gives a tuple of 3 where"),
        ({"val_loader": []}, ValueError, r"val_loader=\[\] gives no batch"),
        ({"loss_fn": lambda o, t: o}, TypeError, r"loss_fn.* gives a Tensor of shape \(8, 2\): it must be"),
        ({"loss_fn": lambda o, t: 1.0}, TypeError, "gives a float: it must be a tensor with one element"),
    ],
    ids=case_name,
)
def test_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    model = linear()
    weights = model.weight.tolist()
    arguments: dict[str, Any] = {
        "model": model,
        "optimizer": SGD(model.parameters(), lr=1.0),
        "loss_fn": mse,
        "loader": DATA,
    }
    with pytest.raises(error, match=message):
        lr_range_test(**(arguments | quick() | settings))
    assert model.weight.tolist() == weights


def test_a_loader_that_can_be_walked_through_once_is_told_apart() -> None:
    model = linear()
    sgd = SGD(model.parameters(), lr=1.0)
    assert len(lr_range_test(model, sgd, mse, one_walk(), **quick(num_steps=2)).lr) == 2
    with pytest.raises(ValueError, match="not an iterator that can be walked through once"):
        lr_range_test(model, sgd, mse, one_walk(), **quick())


def test_the_result_makes_a_schedule() -> None:
    lr = np.geomspace(1e-5, 1.0, 60)
    loss = 2.0 - 1.5 / (1.0 + (0.01 / lr) ** 2)
    result = RangeTestResult(lr, lr[None], loss[None], None, None, "the end")
    bounds = result.bounds(ratio=4)
    assert bounds.base_lr == bounds.max_lr / 4
    assert result.schedule(step_size_up=300, ratio=4, mode="triangular2") == CyclicSchedule(
        bounds.base_lr, bounds.max_lr, step_size_up=300, mode="triangular2"
    )
    assert result.suggest() == result.suggest("smith") == bounds.max_lr


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = linear()
    sgd = SGD(model.parameters(), lr=1.0)
    trial(model, optimizer=sgd)
    assert capsys.readouterr() == ("", "")

    terminal = io.StringIO()
    console = rich.console.Console(file=terminal, force_terminal=True, width=100)
    monkeypatch.setattr(rich.console, "Console", lambda **_: console)
    lr_range_test(model, sgd, mse, DATA, progress=False, **quick())
    assert terminal.getvalue() == ""
    trial(model, optimizer=sgd)
    assert "6/6" in terminal.getvalue()
    assert "lr 1.00e-01" in terminal.getvalue()


def test_without_rich_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert len(trial(linear()).lr) == 6
