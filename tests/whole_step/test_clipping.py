"""Clipping by norm and by value: torch's weights; rules may change between steps, and wrong ones are refused."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from helpers import (
    COPIES,
    LONG,
    Beside,
    assert_same_training,
    bits,
    every_parameter,
    give,
    go_on,
    gradient_sets,
    hand_over,
    parameters,
    picture,
    raised,
)

SHAPES = (1, 17, (3, 5), 65, LONG)
INF, NAN = math.inf, math.nan
OPTIONS: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.01, "dampening": 0.3},
    {"weight_decay": 0.01, "nesterov": True, "maximize": True},
    {"cycle_momentum": False, "momentum": 0.0},
]
Clip = Callable[[FusedCyclicSGD, Sequence[Tensor]], object]


def ours(over: Sequence[Tensor], **settings: Any) -> FusedCyclicSGD:
    groups: list[dict[str, Any]] = [{"params": over[::2]}, {"params": over[1::2], "max_lr": 0.9}]
    return FusedCyclicSGD(groups, 0.05, 0.4, **settings)


def with_gradients(dtype: torch.dtype = torch.float32, steps: int = 3, **settings: Any) -> FusedCyclicSGD:
    """After some steps, with gradients."""
    optimizer = ours(parameters([9, (3, 4), 5], dtype), **settings)
    go_on(optimizer, steps)
    over = every_parameter(optimizer)
    give(over, gradient_sets(over, 1, seed=5)[0])
    return optimizer


# --- beside torch -------------------------------------------------------------------------------------------


def times_coefficient(optimizer: FusedCyclicSGD, over: Sequence[Tensor]) -> None:
    """What clip_grad_norm_ does to the gradients, given the coefficient."""
    for parameter in over:
        if parameter.grad is not None:
            parameter.grad.mul_(torch.tensor(optimizer._binding.native.clip_coefficient, dtype=parameter.dtype))


def train_beside_torch(optimizer: FusedCyclicSGD, sets: Sequence[Sequence[Tensor | None]], clip: Clip) -> list[float]:
    """Every step of ours, then torch's with gradients that were clipped in a pass of its own. The coefficients."""
    beside = Beside(optimizer)
    coefficients = []
    for gradients in sets:
        beside.give(gradients)
        before = [None if g is None else bits(g) for g in gradients]
        hand_over(optimizer, beside.theirs)
        optimizer.step()
        assert [None if p.grad is None else bits(p.grad) for p in beside.over] == before, "p.grad is never written"
        assert all(p.grad is g for p, g in zip(beside.over, gradients, strict=True))
        clip(optimizer, beside.twins)
        beside.theirs.step()
        coefficients.append(optimizer._binding.native.clip_coefficient)
        beside.assert_same()
    return coefficients


def clip_values(limit: float) -> Clip:
    return lambda _, twins: torch.nn.utils.clip_grad_value_(twins, limit)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtypes", [(torch.float32,), (torch.float64,), (torch.float32, torch.float64)], ids=str)
def test_clipped_by_norm_the_weights_are_torchs(
    dtypes: tuple[torch.dtype, ...], threads: int, options: dict[str, Any]
) -> None:
    torch.set_num_threads(threads)
    start = parameters(SHAPES, torch.float64)
    over = [p.detach().to(dtype).requires_grad_() for p, dtype in zip(start, itertools.cycle(dtypes), strict=False)]
    sets: list[list[Tensor | None]] = [list(each) for each in gradient_sets(every_parameter(ours(over)), 8)]
    sets[3][1] = sets[4][0] = None
    sets[5] = [None if g is None else g / 1e4 for g in sets[5]]
    coefficients = train_beside_torch(ours(over, max_grad_norm=3.0, **options), sets, times_coefficient)
    assert coefficients.count(1.0) == 1
    assert coefficients[5] == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_coefficient_is_clip_grad_norms(dtype: torch.dtype) -> None:
    """torch finds the norm in the gradients' dtype: to its rounding."""
    over = parameters(SHAPES, dtype)
    optimizer = ours(over, max_grad_norm=3.0)
    for gradients in gradient_sets(over, 3):
        give(over, gradients)
        optimizer.step()
        theirs = float(torch.nn.utils.clip_grad_norm_(over, 3.0))
        assert optimizer.last_grad_norm == pytest.approx(theirs, rel=20 * torch.finfo(dtype).eps)
        assert optimizer._binding.native.clip_coefficient == pytest.approx(
            3.0 / (theirs + 1e-6), rel=20 * torch.finfo(dtype).eps
        )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("limit", [1e-3, 0.1, 1 / 3, INF])
def test_clipped_by_value_the_weights_are_torchs(limit: float, dtype: torch.dtype, options: dict[str, Any]) -> None:
    over = parameters([*range(70), LONG], dtype)
    optimizer = ours(over, max_grad_value=limit, **options)
    sets = gradient_sets(every_parameter(optimizer), 4)
    train_beside_torch(optimizer, sets, clip_values(limit))
    assert optimizer.last_grad_norm is None


@pytest.mark.parametrize("clipping", [{"max_grad_norm": 0.5}, {"max_grad_value": 0.07}], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_gradients_are_clipped_in_float32(dtype: torch.dtype, clipping: dict[str, float]) -> None:
    """One rounding at the store: as an optimizer of the same weights in float32 whose weights are rounded after it."""
    start = parameters([17, 65], dtype)
    wide = [p.detach().float().requires_grad_() for p in start]
    settings: dict[str, Any] = {"cycle_momentum": False, "momentum": 0.0, **clipping}
    narrow, other = ours(start, **settings), ours(wide, **settings)
    for gradients in gradient_sets(start, 3):
        give(start, gradients)
        give(wide, [g.float() for g in gradients])
        for optimizer in (narrow, other):
            optimizer.step()
        assert narrow.last_grad_norm == other.last_grad_norm
        with torch.no_grad():
            for p, q in zip(start, wide, strict=True):
                q.copy_(q.to(dtype))
                assert torch.equal(p.float(), q)


# --- what is asked for, and when ----------------------------------------------------------------------------


def test_an_infinite_max_grad_norm_measures_only() -> None:
    measuring, plain = with_gradients(max_grad_norm=INF), with_gradients()
    for optimizer in (measuring, plain):
        optimizer.step()
    for p, q in zip(every_parameter(measuring), every_parameter(plain), strict=True):
        assert bits(p) == bits(q)
    gradients = [p.grad for p in every_parameter(plain) if p.grad is not None]
    assert measuring.last_grad_norm == pytest.approx(float(torch.nn.utils.get_total_norm(gradients)), rel=1e-6)
    assert measuring._binding.native.clip_coefficient == 1.0
    assert plain.last_grad_norm is None


def test_without_gradients_the_norm_is_zero() -> None:
    optimizer = with_gradients(max_grad_norm=1.0, error_if_nonfinite=True)
    before = [bits(p) for p in every_parameter(optimizer)]
    optimizer.zero_grad()
    optimizer.step()
    assert optimizer.last_grad_norm == 0.0
    assert optimizer._binding.native.clip_coefficient == 1.0
    assert optimizer.applied_steps == 4
    assert [bits(p) for p in every_parameter(optimizer)] == before


def test_rules_may_be_set_between_steps() -> None:
    over = parameters([17, 65])
    optimizer = ours(over)
    sets = gradient_sets(every_parameter(optimizer), 5)
    assert train_beside_torch(optimizer, sets[:1], lambda *_: None) == [1.0]
    optimizer.max_grad_norm = 0.25
    assert max(train_beside_torch(optimizer, sets[1:3], times_coefficient)) < 1.0
    optimizer.max_grad_norm = None
    optimizer.max_grad_value = 0.05
    train_beside_torch(optimizer, sets[3:4], clip_values(0.05))
    assert optimizer.last_grad_norm is None
    optimizer.max_grad_value = None
    assert train_beside_torch(optimizer, sets[4:], lambda *_: None) == [1.0]


RULES: dict[str, Any] = {
    "max_grad_norm": 0.25,
    "max_grad_value": None,
    "error_if_nonfinite": True,
    "skip_nonfinite": False,
    "advance_on_skip": True,
    "write_unscaled_grad": True,
}


def rules_of(optimizer: FusedCyclicSGD) -> dict[str, Any]:
    return {name: getattr(optimizer, name) for name in RULES}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_rules_are_copied_and_pickled(copied: Callable[[FusedCyclicSGD], FusedCyclicSGD]) -> None:
    optimizer = with_gradients(**RULES)
    twin = copied(optimizer)
    assert rules_of(twin) == rules_of(optimizer) == RULES
    give(every_parameter(twin), [p.grad for p in every_parameter(optimizer)])
    for each in (optimizer, twin):
        each.step()
    assert twin.last_grad_norm == optimizer.last_grad_norm is not None
    assert twin._binding.native.clip_coefficient == optimizer._binding.native.clip_coefficient < 1.0
    assert_same_training(twin, optimizer)


def test_rules_are_not_part_of_a_state_dict() -> None:
    """The optimizer that loads keeps its own."""
    optimizer, other = with_gradients(**RULES), with_gradients(max_grad_value=0.5)
    saved = optimizer.state_dict()
    assert not any(name in group for group in saved["param_groups"] for name in RULES)
    before = rules_of(other)
    other.load_state_dict(saved)
    assert rules_of(other) == before
    train_beside_torch(other, gradient_sets(every_parameter(other), 2), clip_values(0.5))


# --- wrong values -------------------------------------------------------------------------------------------

NUMBERS: list[object] = [0, 0.0, -0.0, -1, NAN, -INF, True, "1", [1.0], 1j, torch.tensor(1.0), np.float32(1.0)]
FLAGS: list[object] = [1, 0, None, "yes", np.bool_(True), torch.tensor(True)]
WRONG: list[tuple[str, object]] = [
    *itertools.product(("max_grad_norm", "max_grad_value"), [*NUMBERS, 10**400]),
    *itertools.product(("error_if_nonfinite", "skip_nonfinite", "advance_on_skip", "write_unscaled_grad"), FLAGS),
]
TOGETHER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_grad_norm": 1.0}, {"max_grad_value": 2.0}),
    ({"max_grad_value": 2.0}, {"max_grad_norm": 1.0}),
    ({}, {"error_if_nonfinite": True}),
    ({"max_grad_value": 2.0}, {"error_if_nonfinite": True}),
    ({"max_grad_norm": 1.0, "error_if_nonfinite": True}, {"max_grad_norm": None}),
    ({"max_grad_norm": 1.0, "error_if_nonfinite": True}, {"skip_nonfinite": True}),
    ({"max_grad_norm": 1.0, "skip_nonfinite": True}, {"error_if_nonfinite": True}),
]


def label(value: object) -> str:
    return repr(value)[:40]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda each: each if isinstance(each, str) else label(each))
def test_a_wrong_value_is_named_and_nothing_has_changed(name: str, value: object) -> None:
    kind = TypeError if not isinstance(value, int | float) or isinstance(value, bool) or value is None else ValueError
    if name not in ("max_grad_norm", "max_grad_value"):
        kind = TypeError
    arguments: dict[str, Any] = {name: value}
    optimizer = with_gradients(max_grad_norm=0.25) if name == "max_grad_norm" else with_gradients()
    before, rules = picture(optimizer), rules_of(optimizer)
    for attempt in (lambda: ours(parameters([3, 4]), **arguments), lambda: setattr(optimizer, name, value)):
        error = raised(attempt)
        assert type(error) is kind
        assert re.match(rf"{name}(=| of \d+ bits)", str(error))
        assert str(error).count(name) == 1
    assert (picture(optimizer), rules_of(optimizer)) == (before, rules)
    theirs = times_coefficient if name == "max_grad_norm" else lambda *_: None
    train_beside_torch(optimizer, gradient_sets(every_parameter(optimizer), 1), theirs)


@pytest.mark.parametrize(("first", "then"), TOGETHER, ids=str)
def test_rules_that_exclude_each_other_are_named(first: dict[str, Any], then: dict[str, Any]) -> None:
    ((name, value),) = then.items()
    optimizer = with_gradients(**first)
    before, rules = picture(optimizer), rules_of(optimizer)
    for attempt in (lambda: ours(parameters([3, 4]), **{**first, **then}), lambda: setattr(optimizer, name, value)):
        error = raised(attempt)
        assert type(error) is ValueError
        assert re.search(r"\w+=\S+", str(error))
    assert (picture(optimizer), rules_of(optimizer)) == (before, rules)
