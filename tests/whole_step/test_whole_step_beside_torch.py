"""A step against the chain of torch calls it stands for: weights, momentum buffers and averages to the bit.

300 steps each, with overflows at steps 0, 1, 7 and 50; scales that move, by powers of two and by others.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import LONG, gradient_sets, hand_over, parameters, raised
from torch_whole_step import SHAPES, Case, Side, Twins, train_beside_torch

STEPS = 300

Level = dict[str, Any]
# Groups that differ in more than their schedule.
EACH: tuple[Level, ...] = (
    {"ema_decay": 0.9, "ema_warmup": False, "average": None, "nesterov": True, "dampening": 0.0},
    {"ema_decay": None, "ema_warmup": False, "average": "swa", "weight_decay": 0.1},
    {"ema_decay": None, "ema_warmup": False, "average": None, "maximize": True},
)
# What users can switch on, and what torch's chain is asked to do differently.
FACTORS: list[list[Level]] = [
    [{}, {"nesterov": True}, {"dampening": 0.3}],
    [{}, {"weight_decay": 0.01}],
    [{}, {"maximize": True}],
    [
        {},
        {"max_grad_norm": 0.5},
        {"max_grad_norm": 1.5, "skip_nonfinite": True},
        {"max_grad_norm": 1.5, "error_if_nonfinite": True},  # a scaler's skip comes first
        {"max_grad_value": 0.07},
        {"skip_nonfinite": True},
    ],
    [{}, {"ema_decay": 0.9}, {"ema_decay": 0.3}, {"ema_decay": 0.99, "ema_warmup": True}, {"average": "swa"}],
    [{}, {"write_unscaled_grad": True}],
    [{}, {"advance_on_skip": True}],
    [{}, {"groups": 3}, {"groups": 3, "each": EACH}],
    [{}, {"dtypes": (torch.float64,)}, {"dtypes": (torch.float32, torch.float64)}],
    [{}, {"gaps": True}],
    [{}, {"foreach": True}],
    [{}, {"own_scaler": False}, {"own_scaler": False, "in_step": False}],
    [{}, {"by_hand": True}],
    [{}, {"growth_factor": 1.7, "growth_interval": 3}],
    [{}, {"overflow": float("nan")}, {"overflow": -float("inf")}],
]


def case_of(levels: Sequence[Level], **more: Any) -> Case:
    return Case(**{name: setting for level in levels for name, setting in level.items()}, **more)


def pairwise(counts: Sequence[int]) -> list[tuple[int, ...]]:
    """Rows of levels, one a factor, in which any two levels of any two factors meet."""
    choose = random.Random(0)
    missing = {
        ((i, a), (j, b))
        for i, j in itertools.combinations(range(len(counts)), 2)
        for a, b in itertools.product(range(counts[i]), range(counts[j]))
    }
    rows = []
    while missing:
        wanted = dict(min(missing))
        tries = [tuple(wanted.get(i, choose.randrange(n)) for i, n in enumerate(counts)) for _ in range(100)]
        met = [set(itertools.combinations(enumerate(row), 2)) & missing for row in tries]
        best = max(range(len(tries)), key=lambda i: len(met[i]))
        rows.append(tries[best])
        missing -= met[best]
    return rows


TABLE = [
    [factor[level] for factor, level in zip(FACTORS, row, strict=True)]
    for row in pairwise([len(factor) for factor in FACTORS])
]


def label(levels: Sequence[Level]) -> str:
    return "-".join(f"{name}={setting}" for level in levels for name, setting in level.items()).replace("torch.", "")


@pytest.mark.parametrize("levels", TABLE, ids=label)
def test_equals_torch(levels: list[Level]) -> None:
    train_beside_torch([Side(case_of(levels))], STEPS)


@pytest.mark.slow
@given(st.tuples(*map(st.sampled_from, FACTORS)), st.integers(0, 2**16), st.sets(st.integers(0, 59), max_size=12))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_equals_torch_at_random(levels: tuple[Level, ...], seed: int, overflows: set[int]) -> None:
    train_beside_torch([Side(case_of(levels, seed=seed), overflows=tuple(overflows))], 60)


@pytest.mark.parametrize("levels", TABLE[::4], ids=label)
def test_two_optimizers_on_one_scaler(levels: list[Level]) -> None:
    """Each with overflows of its own: the other's step is applied, and the scale falls for both."""
    case = case_of(levels)
    other = replace(case, seed=9, nesterov=False, dampening=0.0, by_hand=not case.by_hand)
    train_beside_torch([Side(case), Side(other, overflows=(1, 5, 50, 120))], STEPS)


@pytest.mark.parametrize("levels", TABLE[::4], ids=label)
def test_one_of_ours_and_one_of_torchs_on_one_scaler(levels: list[Level]) -> None:
    train_beside_torch([Side(case_of(levels)), Twins(overflows=(0, 3, 50))], STEPS)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("foreach", [False, True])
def test_tensors_that_threads_share(foreach: bool, threads: int) -> None:
    torch.set_num_threads(threads)
    options: dict[str, Any] = {"weight_decay": 0.01, "max_grad_norm": 5.0, "ema_decay": 0.9, "foreach": foreach}
    train_beside_torch([Side(Case(shapes=(*SHAPES, LONG, 100_003), groups=3, **options))], 12)


def test_clipping_binds_in_some_steps_only() -> None:
    """The larger norm of the table lies between those of the gradients."""
    side = Side(Case(max_grad_norm=1.5), overflows=())
    own, torchs = side.case.scaler(own=True), side.case.scaler(own=False)
    coefficients = []
    for step in range(7):
        side.step(step, own, torchs)
        own.update()
        torchs.update()
        coefficients.append(side.ours._binding.native.clip_coefficient)
    assert min(coefficients) < 1.0
    assert max(coefficients) == 1.0


# --- can these tests fail? ----------------------------------------------------------------------------------


def test_an_ulp_is_noticed() -> None:
    side = Side(Case(ema_decay=0.9), overflows=())
    train_beside_torch([side], 5)
    for tensor in (side.over[0].detach(), *(side.ours.state[side.over[1]][n] for n in ("momentum_buffer", "average"))):
        before = tensor.clone()
        tensor.copy_(torch.nextafter(tensor, torch.tensor(9.0)))
        assert isinstance(raised(side.assert_same), AssertionError)
        tensor.copy_(before)
    side.assert_same()


def test_the_chain_is_torchs_sgd_where_nothing_is_switched_on() -> None:
    """Without overflows and at scale 1: TorchTail against a bare loop of torch's SGD."""
    side = Side(Case(), overflows=())
    start = parameters(SHAPES)
    sgd = torch.optim.SGD(start, lr=0.0, momentum=0.9)
    torchs = torch.amp.GradScaler("cpu", init_scale=1.0)
    torchs.scale(torch.ones(()))
    sets = gradient_sets(start, 7)
    for step in range(20):
        for p, q, g in zip(start, side.theirs.over, sets[step % 7], strict=True):
            p.grad, q.grad = g.clone(), g.clone()
        side.theirs.step(torchs, 1.0, None)
        torchs.update()
        hand_over(side.theirs.sgd, sgd)
        sgd.step()
    assert all(torch.equal(p, q) for p, q in zip(start, side.theirs.over, strict=True))
