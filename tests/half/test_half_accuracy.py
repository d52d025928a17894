"""Every way to keep a 16-bit weight against float64: one rounding a step, at the store, and none beside it.

For a stored value y and the value x that float64 arithmetic gives for the same inputs

    |y - x| <= half an ulp of x, or a whole one where chance rounds, + 8 * 2**-24 * largest term

with the ulp of what y is stored in: the last term is float32 arithmetic, whose relative error is a few 2**-24.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from half_helpers import COMBINATIONS, HALVES, WAYS, half_ulp, ids_of, stepped_reference, weight_of
from helpers import bits, give, gradient_sets, parameters

OPTIONS: list[dict[str, Any]] = [{"nesterov": True, "weight_decay": 0.01}, {"dampening": 0.3, "maximize": True}]
# Around a lane, a block of lanes and two.
LENGTHS = (1, 7, 16, 33, 64, 129, 150)


def stored_weight_errors(optimizer: FusedCyclicSGD, parameter: Tensor, x: Tensor, way: str) -> list[tuple[Tensor, Any]]:
    """The errors of what is stored for x, each with what it may be for this way to keep it."""
    p = parameter.detach().double()
    unit = half_ulp(x, parameter.dtype)
    if way == "stochastic":
        return [(p - x, 2 * unit)]
    found: list[tuple[Tensor, Any]] = [(p - x, unit)]
    if way == "master":
        found.append((optimizer.state[parameter]["master_weight"].double() - x, half_ulp(x, torch.float32)))
    if way == "kahan":
        found.append((weight_of(optimizer, parameter) - x, half_ulp(x - p, parameter.dtype)))
    return found


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("dtype", "momentum_dtype", "way"), COMBINATIONS, ids=ids_of)
def test_each_step_is_within_one_rounding_of_float64(
    dtype: torch.dtype, momentum_dtype: torch.dtype | None, way: str, options: dict[str, Any]
) -> None:
    over = parameters(LENGTHS, dtype)
    optimizer = FusedCyclicSGD(over, 0.5, 0.75, step_size_up=4, momentum_dtype=momentum_dtype, **WAYS[way], **options)
    arithmetic = 8 * 2.0 ** (-53 if dtype == torch.float64 else -24)
    for gradients in gradient_sets(over, 4):
        give(over, gradients)
        expected = [stepped_reference(optimizer, parameter) for parameter in over]
        optimizer.step()
        for parameter, (x, m, largest) in zip(over, expected, strict=True):
            buffer = optimizer.state[parameter]["momentum_buffer"]
            stored = stored_weight_errors(optimizer, parameter, x, way)
            for error, unit in [*stored, (buffer.double() - m, half_ulp(m, buffer.dtype))]:
                assert torch.all(error.abs() <= unit + arithmetic * largest), f"{parameter.numel()} elements"
            if way == "master":
                assert bits(parameter) == bits(optimizer.state[parameter]["master_weight"].to(dtype))


def small_updates(dtype: torch.dtype, steps: int, **settings: Any) -> tuple[FusedCyclicSGD, Tensor, Tensor]:
    """Updates of up to a 32nd of an ulp of weights between 1.25 and 1.75, and where float64 has come to."""
    generator = torch.Generator().manual_seed(3)
    weight = (1.25 + 0.5 * torch.rand(256, generator=generator)).to(dtype).requires_grad_()
    gradient = (2 * torch.rand(256, generator=generator) - 1).to(dtype)
    lr = torch.finfo(dtype).eps / 32
    optimizer = FusedCyclicSGD([weight], lr, lr, cycle_momentum=False, momentum=0.0, **settings)
    expected = weight.detach().double() - steps * lr * gradient.double()
    for _ in range(steps):
        weight.grad = gradient
        optimizer.step()
    return optimizer, weight, expected


@pytest.mark.parametrize("dtype", HALVES, ids=ids_of)
def test_small_updates_are_lost_rounded_to_nearest(dtype: torch.dtype) -> None:
    """What the other ways are for. A float32 momentum buffer does not help."""
    for settings in ({}, {"momentum_dtype": "float32"}):
        _, weight, expected = small_updates(dtype, 1000, **settings)
        _, start, _ = small_updates(dtype, 0)
        assert torch.equal(weight, start)
        assert float((weight.detach().double() - expected).abs().max()) > 20 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", HALVES, ids=ids_of)
@pytest.mark.parametrize("way", ["kahan", "master"])
def test_the_other_ways_keep_small_updates(way: str, dtype: torch.dtype) -> None:
    """Kahan's rest is at most eps / 2 between 1 and 2, and is itself rounded by at most eps**2 / 8 a step."""
    eps, steps = torch.finfo(dtype).eps, 1000
    optimizer, weight, expected = small_updates(dtype, steps, **WAYS[way])
    drift = steps * ((eps**2 / 8 if way == "kahan" else 0.0) + 2.0**-24)  # half an ulp of float32 between 1 and 2
    assert torch.all((weight_of(optimizer, weight) - expected).abs() <= drift)
    assert torch.all((weight.detach().double() - expected).abs() <= eps / 2 + drift)


@pytest.mark.parametrize("dtype", HALVES, ids=ids_of)
def test_a_float32_buffer_keeps_what_a_buffer_of_16_bits_loses(dtype: torch.dtype) -> None:
    """A buffer near 1 that takes gradients of a 32nd of its ulp, all of one sign, under a momentum of 1."""
    unit = torch.finfo(dtype).eps / 32
    found = {}
    for momentum_dtype in (None, "float32"):
        weight = torch.zeros(64, dtype=dtype, requires_grad=True)
        optimizer = FusedCyclicSGD(
            [weight], 0.0, 0.0, cycle_momentum=False, momentum=1.0, momentum_dtype=momentum_dtype
        )
        for gradient in (1.25, *[unit] * 300):
            weight.grad = torch.full_like(weight, gradient)
            optimizer.step()
        found[momentum_dtype] = float(optimizer.state[weight]["momentum_buffer"][5])
    assert found[None] == 1.25
    assert abs(found["float32"] - (1.25 + 300 * unit)) <= 300 * 2.0**-24
