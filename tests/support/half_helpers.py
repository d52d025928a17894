"""Weights and buffers of 16 bits: the combinations that are allowed, and a step in float64 for comparison."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from helpers import buffer_of, every_parameter, hand_over, sgd_beside

HALVES = (torch.bfloat16, torch.float16)
# The ways to keep a weight.
WAYS: dict[str, dict[str, Any]] = {
    "nearest": {},
    "stochastic": {"rounding": "stochastic", "seed": 5},
    "kahan": {"kahan": True},
    "master": {"master_weights": True},
}
# For each dtype of a parameter: the momentum_dtypes that it may have, and the ways to keep it.
LEGAL: dict[torch.dtype, tuple[tuple[torch.dtype | None, ...], tuple[str, ...]]] = {
    torch.float32: ((None, torch.float32, torch.bfloat16), ("nearest",)),
    torch.float64: ((None, torch.float64), ("nearest",)),
    torch.bfloat16: ((None, torch.float32, torch.bfloat16), tuple(WAYS)),
    torch.float16: ((None, torch.float32, torch.float16), tuple(WAYS)),
}
COMBINATIONS = [
    (dtype, momentum_dtype, way)
    for dtype, (momentum_dtypes, ways) in LEGAL.items()
    for momentum_dtype, way in itertools.product(momentum_dtypes, ways)
]


def name_of(dtype: torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")


def ids_of(value: object) -> str:
    return str(name_of(value)) if isinstance(value, torch.dtype | None) else str(value)


def buffer_dtype(dtype: torch.dtype, momentum_dtype: torch.dtype | None, way: str) -> torch.dtype:
    """Returns the dtype of the buffer, by the table of the documentation."""
    if momentum_dtype is not None:
        return momentum_dtype
    return torch.float32 if way == "master" else dtype


def half_ulp(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns half the distance of neighbours in `dtype` around each element of a float64 tensor."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(x.abs().clamp_min(info.smallest_normal)).exponent - 1
    return torch.ldexp(torch.full_like(x, info.eps / 2), exponent)


def weight_of(optimizer: FusedCyclicSGD, parameter: Tensor) -> Tensor:
    """Returns the weight that the next update starts from, in float64."""
    state: dict[str, Tensor] = optimizer.state.get(parameter, {})
    if "master_weight" in state:
        return state["master_weight"].double()
    p = parameter.detach().double()
    return p + state["compensation"].double() if "compensation" in state else p


def stepped_reference(optimizer: FusedCyclicSGD, parameter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns weight, buffer and the largest term of their sums after the next update, in float64."""
    group = optimizer.param_groups[0]
    assert parameter.grad is not None
    p, g = weight_of(optimizer, parameter), parameter.grad.double()
    if group["maximize"]:
        g = -g
    g = g + group["weight_decay"] * p
    before = buffer_of(optimizer, parameter)
    m = g
    if before is not None:
        m = group["momentum"] * before.double() + (1 - group["dampening"]) * g
    d = g + group["momentum"] * m if group["nesterov"] else m
    terms = [p, g, m, d, torch.zeros_like(p) if before is None else before.double()]
    return p - group["lr"] * d, m, torch.stack([term.abs() for term in terms]).amax(0)


def in_float32(optimizer: FusedCyclicSGD, gradients: Sequence[Tensor], **options: Any) -> list[tuple[Tensor, Tensor]]:
    """Steps, and returns the weights and buffers that torch's SGD comes to in float32 from the same ones."""
    over = every_parameter(optimizer)
    theirs, wide = sgd_beside(FusedCyclicSGD([p.detach().float() for p in over], 0.1, 0.5, **options))
    hand_over(optimizer, theirs)
    for parameter, twin, gradient in zip(over, wide, gradients, strict=True):
        parameter.grad, twin.grad = gradient, gradient.float()
        before = buffer_of(optimizer, parameter)
        if before is not None:
            theirs.state[twin]["momentum_buffer"] = before.float().clone()
    theirs.step()
    optimizer.step()
    return [(twin.detach(), theirs.state[twin]["momentum_buffer"]) for twin in wide]
