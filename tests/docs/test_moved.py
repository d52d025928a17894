"""Modules have moved: what was pickled before goes on, and public modules are where they were."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import Optimizer

import clr_native
from golden import pickled

PUBLIC = {
    "optimizer": ["FusedCyclicSGD"],
    "scheduler": ["CyclicLR"],
    "evaluation": ["evaluate"],
    "plotting": ["plot_schedule"],
    "grad_scaler": ["GradScaler"],
}


@pytest.fixture(scope="module")
def new() -> dict[str, Any]:
    return pickled.objects()


@pytest.mark.parametrize("file", sorted(pickled.FOLDER.glob("*.pickle")), ids=lambda file: file.stem)
def test_an_old_pickle_goes_on(file: Path, new: dict[str, Any]) -> None:
    old, made = pickle.loads(file.read_bytes()), new[file.stem]
    if isinstance(made, list):
        assert old == made
        return
    pairs = [each if isinstance(each, tuple) else (each, None) for each in (old, made)]
    if isinstance(made, clr_native.GradScaler):
        assert old.state_dict() == made.state_dict()
        return
    for optimizer, scheduler in pairs:
        assert isinstance(optimizer, Optimizer)
        pickled.go_on(optimizer, scheduler, 5)
    for p, q in zip(*(pickled.every_parameter(optimizer) for optimizer, _ in pairs), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_module_is_where_it_was(name: str) -> None:
    module = importlib.import_module(f"clr_native.{name}")
    for public in PUBLIC[name]:
        assert getattr(module, public) is getattr(clr_native, public)
