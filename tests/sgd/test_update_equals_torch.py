"""Weights and momentum buffers are those of torch.optim.SGD, to the bit, over hundreds of steps."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CyclicLR

from clr_native import FusedCyclicSGD
from helpers import (
    LENGTHS,
    LONG,
    Beside,
    assert_same_training,
    clones,
    every_parameter,
    follow,
    give,
    gradient_sets,
    hand_over,
    parameters,
    sgd_beside,
)

STEPS = 500
VERY_LONG = 300_007
MODES: dict[str, dict[str, Any]] = {
    "triangular": {"mode": "triangular"},
    "triangular2": {"mode": "triangular2"},
    "exp_range": {"mode": "exp_range", "gamma": 0.995},
}
GROUPS: dict[int, list[dict[str, float]]] = {
    1: [{"base_lr": 0.01, "max_lr": 0.1}],
    3: [
        {"base_lr": 0.01, "max_lr": 0.1, "base_momentum": 0.8, "max_momentum": 0.9},
        {"base_lr": 0.0, "max_lr": 0.02, "base_momentum": 0.5, "max_momentum": 0.99},
        {"base_lr": 0.05, "max_lr": 0.3, "base_momentum": 0.7, "max_momentum": 0.7},
    ],
}
OPTIONS = [
    {"nesterov": nesterov, "dampening": dampening, "weight_decay": weight_decay, "maximize": maximize}
    for nesterov, dampening, weight_decay, maximize in itertools.product(
        (False, True), (0.0, 0.3), (0.0, 0.01), (False, True)
    )
    if not (nesterov and dampening)  # refused, as in torch
]
DTYPES = [torch.float32, torch.float64]


def label(value: object) -> str | None:
    if isinstance(value, dict):
        return "-".join(name for name, setting in value.items() if setting) or "plain"
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else None


@functools.lru_cache(maxsize=1)
def problem(dtype: torch.dtype) -> tuple[list[Tensor], list[list[Tensor]]]:
    over = parameters((*LENGTHS, LONG), dtype)
    return over, gradient_sets(over)


def dealt(values: Sequence[Tensor], groups: int) -> list[Tensor]:
    """In the order of the groups they are dealt to, which is that of every_parameter()."""
    return [value for g in range(groups) for value in values[g::groups]]


def ours(over: list[Tensor], groups: int, **settings: Any) -> FusedCyclicSGD:
    split = [{"params": over[i::groups], **bounds} for i, bounds in enumerate(GROUPS[groups])]
    return FusedCyclicSGD(split, step_size_up=7, step_size_down=4, **settings)


@pytest.mark.parametrize("dtype", DTYPES, ids=label)
@pytest.mark.parametrize("options", OPTIONS, ids=label)
def test_equals_torch_given_the_same_lr_and_momentum(options: dict[str, Any], dtype: torch.dtype) -> None:
    """All modes, group counts and thread counts, with every length."""
    start, sets = problem(dtype)
    for mode, groups in itertools.product(MODES, GROUPS):
        gradients = [dealt(each, groups) for each in sets]
        first = ours(clones(start), groups, **MODES[mode], **options)
        theirs, twins = sgd_beside(first)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            contender = first if threads == 1 else ours(clones(start), groups, **MODES[mode], **options)
            own = every_parameter(contender)
            for step in range(STEPS):
                give(own, gradients[step % len(gradients)])
                if contender is first:
                    give(twins, gradients[step % len(gradients)])
                    hand_over(first, theirs)
                    theirs.step()
                contender.step()
            assert contender.applied_steps == STEPS, (mode, groups, threads)
            assert_same_training(contender, theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=label)
@pytest.mark.parametrize("options", OPTIONS, ids=label)
@pytest.mark.parametrize("sizes", [range(150), [VERY_LONG]], ids=["every length", "very long"])
def test_every_length_equals_torch(sizes: Sequence[int], options: dict[str, Any], dtype: torch.dtype) -> None:
    follow(ours(parameters(sizes, dtype), 1, **options), 3)


@pytest.mark.parametrize("dtype", DTYPES, ids=label)
@pytest.mark.parametrize("options", OPTIONS, ids=label)
def test_equals_torch_foreach(options: dict[str, Any], dtype: torch.dtype) -> None:
    start, sets = problem(dtype)
    beside = Beside(ours(clones(start), 1, **options), foreach=True)
    for step in range(50):
        beside.step(sets[step % len(sets)])
    beside.assert_same()


@pytest.mark.parametrize("dtype", DTYPES, ids=label)
@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
@pytest.mark.parametrize("mode", MODES)
def test_beside_torch_cyclic_lr(mode: str, foreach: bool, dtype: torch.dtype) -> None:
    """fp32: equal. fp64: within 1e-12 of the largest weight; torch's schedule is the inexact side there."""
    start, sets = problem(dtype)
    for groups, bounds in GROUPS.items():
        contender = ours(clones(start), groups, **MODES[mode], weight_decay=0.01)
        theirs, twins = sgd_beside(contender, foreach=foreach)
        columns = {name: [each[name] for each in bounds] for name in bounds[0]}
        scheduler = CyclicLR(
            theirs,
            **columns,  # type: ignore[arg-type]  # lists of bounds under the names of its arguments
            **MODES[mode],
            step_size_up=7,
            step_size_down=4,
        )
        own = every_parameter(contender)
        for step in range(STEPS):
            gradients = dealt(sets[step % len(sets)], groups)
            give(twins, gradients)
            give(own, gradients)
            theirs.step()
            scheduler.step()
            contender.step()
        if dtype is torch.float32:
            assert_same_training(contender, theirs)
        largest = max(q.abs().max().item() for q in twins)
        difference = max((p - q).abs().max().item() for p, q in zip(own, twins, strict=True))
        assert difference <= 1e-12 * largest
