"""bfloat16 and float16: the whole update in float32, one rounding at the store, and no element left behind.

That is: a stored parameter or buffer is what torch's SGD gives in float32, rounded once. How far it is from float64
stands in test_half_accuracy.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from half_helpers import in_float32
from helpers import bits, clones, every_parameter, give, gradient_sets, parameters

DTYPES = [torch.bfloat16, torch.float16]
# Twice the widest block, 64 elements, and a tail.
LENGTHS = range(150)
OPTIONS: list[dict[str, Any]] = [
    {"nesterov": nesterov, "dampening": dampening, "weight_decay": weight_decay, "maximize": maximize}
    for nesterov, dampening, weight_decay, maximize in itertools.product(
        (False, True), (0.0, 0.3), (0.0, 0.01), (False, True)
    )
    if not (nesterov and dampening)
]


def ours(over: Sequence[Tensor], **options: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(over, 0.5, 0.75, step_size_up=4, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS)
def test_each_step_is_float32s_rounded_once(options: dict[str, Any], dtype: torch.dtype) -> None:
    over = parameters(LENGTHS, dtype)
    optimizer = ours(over, **options)
    for gradients in gradient_sets(over, 3):
        for p, (weight, buffer) in zip(over, in_float32(optimizer, gradients, **options), strict=True):
            assert bits(p) == bits(weight.to(dtype)), f"{p.numel()} elements"
            assert bits(optimizer.state[p]["momentum_buffer"]) == bits(buffer.to(dtype)), f"buffer of {p.numel()}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", range(9))
def test_no_element_is_left_behind(offset: int, dtype: torch.dtype) -> None:
    """Every element of every length moves, at every step, aligned or not; what lies around does not."""
    around = [torch.full((n + offset + 3,), 2.0, dtype=dtype) for n in LENGTHS]
    over = [memory[offset : offset + n].requires_grad_() for n, memory in zip(LENGTHS, around, strict=True)]
    optimizer = ours(over)
    for _ in range(3):
        before = clones(over)
        give(over, [torch.full_like(p, 0.25) for p in over])
        optimizer.step()
        for old, new in zip(before, over, strict=True):
            assert torch.all(new < old), f"{new.numel()} elements"
    for n, memory in zip(LENGTHS, around, strict=True):
        assert torch.all(memory[:offset] == 2.0)
        assert torch.all(memory[offset + n :] == 2.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extremes_round_as_torch_rounds_them(dtype: torch.dtype) -> None:
    """Every 16-bit pattern as parameter and, shuffled, as gradient: subnormals, overflow, infinities, NaN."""
    patterns = torch.arange(-(2**15), 2**15).to(torch.int16)
    shuffled = patterns[torch.randperm(2**16, generator=torch.Generator().manual_seed(0))]
    parameter = patterns.view(dtype).clone().requires_grad_()
    optimizer = FusedCyclicSGD([parameter], 0.3, 0.3, cycle_momentum=False)
    theirs = torch.optim.SGD([parameter.detach().float().requires_grad_()], lr=0.3, momentum=0.9)
    (wide,) = every_parameter(theirs)
    parameter.grad = shuffled.view(dtype)
    wide.grad = parameter.grad.float()
    optimizer.step()
    theirs.step()
    expected = wide.detach().to(dtype)
    assert torch.isinf(expected).any()
    assert torch.allclose(parameter.detach(), expected, rtol=0, atol=0, equal_nan=True)
    number = ~expected.isnan()
    assert bits(parameter.detach()[number]) == bits(expected[number])
