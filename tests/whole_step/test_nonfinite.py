"""Infinities and NaN among the gradients, without a GradScaler: clipped as torch does, an error, or a skipped step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from clr_native import FusedCyclicSGD
from helpers import Beside, assert_refused, every_parameter, gradient_of, parameters, picture
from test_clipping import with_gradients

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
INF, NAN = math.inf, math.nan


def spoilt(optimizer: FusedCyclicSGD, value: float) -> FusedCyclicSGD:
    gradient_of(every_parameter(optimizer)[1]).view(-1)[-1] = value
    return optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [INF, -INF, NAN])
@pytest.mark.parametrize(
    "clipping", [{"max_grad_norm": 0.5}, {"max_grad_norm": INF}, {"max_grad_value": 0.07}], ids=str
)
def test_infinities_and_nan_do_what_they_do_in_torch(
    clipping: dict[str, Any], value: float, dtype: torch.dtype
) -> None:
    optimizer = spoilt(with_gradients(dtype, **clipping), value)
    beside = Beside(optimizer)
    beside.give([p.grad for p in beside.over])
    norm = None
    if "max_grad_norm" in clipping:
        norm = torch.nn.utils.clip_grad_norm_(beside.twins, clipping["max_grad_norm"]).item()
    else:
        torch.nn.utils.clip_grad_value_(beside.twins, clipping["max_grad_value"])
    beside.step()
    assert repr(optimizer.last_grad_norm) == repr(norm)
    for p, q in zip(beside.over, beside.twins, strict=True):
        buffers = (optimizer.state[p]["momentum_buffer"], beside.theirs.state[q]["momentum_buffer"])
        for own, other in ((p, q), buffers):
            assert torch.equal(own.nan_to_num(9.0), other.nan_to_num(9.0))
    assert optimizer.skipped_steps == 0


@pytest.mark.parametrize("value", [INF, -INF, NAN, -NAN])
@pytest.mark.parametrize("max_grad_norm", [0.5, INF])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("steps", [0, 3])
def test_an_error_where_that_is_wanted_and_nothing_has_changed(
    steps: int, dtype: torch.dtype, max_grad_norm: float, value: float
) -> None:
    optimizer = with_gradients(dtype, steps, max_grad_norm=max_grad_norm, error_if_nonfinite=True, ema_decay=0.9)
    spoilt(optimizer, value)
    word = "nan" if math.isnan(value) else "inf"
    words = rf"norm of all gradients is {word}: .*error_if_nonfinite=True"
    assert_refused(optimizer.step, RuntimeError, words, optimizer)
    assert repr(optimizer.last_grad_norm) == word
    spoilt(optimizer, 0.25).step()
    assert optimizer.applied_steps == steps + 1
    assert optimizer.last_grad_norm is not None
    assert math.isfinite(optimizer.last_grad_norm)


@pytest.mark.parametrize("value", [INF, -INF, NAN])
@pytest.mark.parametrize("clipping", [{}, {"max_grad_norm": 0.5}, {"max_grad_norm": INF}, {"max_grad_value": 0.07}])
@pytest.mark.parametrize("dtype", DTYPES)
def test_skip_nonfinite_counts_and_changes_nothing_else(
    dtype: torch.dtype, clipping: dict[str, Any], value: float
) -> None:
    optimizer = with_gradients(dtype, skip_nonfinite=True, ema_decay=0.9, **clipping)
    before = picture(spoilt(optimizer, value))
    optimizer.step()
    assert optimizer.last_step_skipped
    after = picture(optimizer)
    assert [group.pop("skipped_steps") for group in after["groups"]] == [(int, 1)] * 2
    assert [group.pop("skipped_steps") for group in before["groups"]] == [(int, 0)] * 2
    assert after == before
    spoilt(optimizer, 0.25).step()
    assert not optimizer.last_step_skipped
    assert (optimizer.applied_steps, optimizer.skipped_steps) == (4, 1)


def test_a_norm_that_overflows_is_not_an_infinite_gradient() -> None:
    """float64 gradients above 1e154: clipped to nothing, as in torch, but not skipped."""
    (weight,) = parameters([3], torch.float64)
    before = weight.detach().clone()
    weight.grad = torch.full((3,), 1e200, dtype=torch.float64)
    optimizer = FusedCyclicSGD([weight], 0.1, 0.5, max_grad_norm=1.0, skip_nonfinite=True)
    optimizer.step()
    assert not optimizer.last_step_skipped
    assert optimizer.last_grad_norm == INF
    assert torch.equal(weight, before)
