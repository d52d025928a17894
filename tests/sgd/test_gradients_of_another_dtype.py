"""A gradient may have another dtype than its parameter: the result is that of the gradient in the wider of both."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD, GradScaler
from half_helpers import HALVES, WAYS, ids_of, stepped_reference
from helpers import (
    LAYOUTS,
    LENGTHS,
    LONG,
    Beside,
    assert_refused,
    assert_same_state,
    bits,
    buffer_of,
    clones,
    every_parameter,
    give,
    gradient_sets,
    parameters,
)

GRADIENTS = (torch.float32, torch.bfloat16, torch.float16)
WIDE = (torch.float32, torch.float64)
PAIRS = [(p, g) for p, g in itertools.product((*WIDE, *HALVES), GRADIENTS) if p != g]
SHAPES = (*LENGTHS, (3, 5, 2, 4), LONG, 0)
OPTIONS: dict[str, dict[str, Any]] = {
    "momentum": {},
    "no momentum": {"cycle_momentum": False, "momentum": 0.0},
    "all": {"weight_decay": 0.01, "nesterov": True, "maximize": True, "momentum_dtype": None},
    "dampened": {"dampening": 0.3, "weight_decay": 0.01},
}


def given(dtype: torch.dtype, gradient: torch.dtype, **options: Any) -> tuple[FusedCyclicSGD, list[list[Tensor]]]:
    over = parameters(SHAPES, dtype)
    sets = [[g.to(gradient) for g in each] for each in gradient_sets(over, 4)]
    for p in over:
        p.grad_dtype = gradient
    return FusedCyclicSGD(over, 0.1, 0.5, step_size_up=3, **options), sets


class BesideCast(Beside):
    """torch's SGD gets the gradients in its parameters' dtype."""

    def give(self, gradients: Any) -> None:
        give(self.over, gradients)
        give(self.twins, [g.detach().to(p.dtype) for g, p in zip(gradients, self.twins, strict=True)])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("dtype", "gradient"), [pair for pair in PAIRS if pair[0] in WIDE], ids=ids_of)
def test_wide_weights_are_those_of_torch_on_the_cast_gradient(
    dtype: torch.dtype, gradient: torch.dtype, options: str
) -> None:
    optimizer, sets = given(dtype, gradient, **OPTIONS[options])
    beside = BesideCast(optimizer)
    for gradients in sets:
        beside.step(gradients)
        beside.assert_same()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("dtype", "gradient"), [pair for pair in PAIRS if pair[0] in HALVES], ids=ids_of)
def test_weights_of_16_bits_are_rounded_once(dtype: torch.dtype, gradient: torch.dtype, options: str) -> None:
    optimizer, sets = given(dtype, gradient, **OPTIONS[options])
    over = every_parameter(optimizer)
    for gradients in sets:
        wide = FusedCyclicSGD([p.detach().float() for p in over], 0.1, 0.5, step_size_up=3, **OPTIONS[options])
        group, own = wide.param_groups[0], optimizer.param_groups[0]
        group["lr"], group["momentum"] = own["lr"], own["momentum"]
        give(every_parameter(wide), [g.float() for g in gradients])
        for p, q in zip(over, every_parameter(wide), strict=True):
            before = buffer_of(optimizer, p)
            if before is not None:
                wide.state[q] = {"momentum_buffer": before.float()}
        give(over, gradients)
        for each in (wide, optimizer):
            each.step()
        for p, q in zip(over, every_parameter(wide), strict=True):
            assert bits(p) == bits(q.to(dtype))
            buffer, expected = buffer_of(optimizer, p), buffer_of(wide, q)
            assert (buffer is None) == (expected is None)
            if buffer is not None and expected is not None:
                assert bits(buffer) == bits(expected.to(dtype))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", HALVES, ids=ids_of)
def test_every_way_to_keep_16_bits_takes_the_same_gradient_in_either_dtype(dtype: torch.dtype, way: str) -> None:
    """A gradient that both dtypes hold gives the same weights, companions, averages and norms, in both."""
    options: dict[str, Any] = {**WAYS[way], "ema_decay": 0.9, "max_grad_norm": 0.1, "trust_coefficient": 0.01}
    optimizer, sets = given(dtype, torch.float32, **options)
    twins = clones(every_parameter(optimizer))
    own = FusedCyclicSGD(twins, 0.1, 0.5, step_size_up=3, **options)
    for gradients in sets:
        rounded = [g.to(dtype) for g in gradients]
        give(every_parameter(optimizer), [g.float() for g in rounded])
        give(twins, rounded)
        for each in (optimizer, own):
            each.step()
        assert optimizer.last_grad_norm == own.last_grad_norm
        assert_same_state(optimizer, own)


@pytest.mark.parametrize(("dtype", "gradient"), PAIRS, ids=ids_of)
def test_norms_infinities_and_unscaled_gradients(dtype: torch.dtype, gradient: torch.dtype) -> None:
    optimizer, sets = given(dtype, gradient, max_grad_norm=float("inf"), write_unscaled_grad=True)
    over = every_parameter(optimizer)
    scaler = GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(1))
    give(over, [g * 8 for g in sets[0]])
    scaler.step(optimizer)
    scaler.update()
    norm = torch.cat([g.double().reshape(-1) for g in sets[0]]).norm().item()
    assert optimizer.last_grad_norm == pytest.approx(norm, rel=1e-14)
    for p, g in zip(over, sets[0], strict=True):
        assert p.grad is not None
        assert p.grad.dtype == gradient
        assert bits(p.grad) == bits(g)
    before = [bits(p) for p in over]
    sets[1][1][3] = float("inf")
    give(over, sets[1])
    scaler.step(optimizer)
    assert optimizer.last_step_skipped
    assert [bits(p) for p in over] == before


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gapped", [False, True], ids=["dense", "gapped"])
@pytest.mark.parametrize(("dtype", "gradient"), PAIRS, ids=ids_of)
def test_any_layout(dtype: torch.dtype, gradient: torch.dtype, layout: str, gapped: bool) -> None:
    """The same weights as from a contiguous gradient."""
    values = [torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    start = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    laid = LAYOUTS["gapped"](start).requires_grad_() if gapped else start.clone().requires_grad_()
    plain = start.clone().requires_grad_()
    optimizers = [FusedCyclicSGD([p], 0.1, 0.5) for p in (laid, plain)]
    for p in (laid, plain):
        p.grad_dtype = gradient
    for value in values:
        laid.grad = LAYOUTS[layout](value.to(gradient))
        plain.grad = laid.grad.contiguous()
        for optimizer in optimizers:
            optimizer.step()
        assert bits(laid) == bits(plain)


def test_dtypes_change_between_steps() -> None:
    (p,) = parameters([(7, 3)], torch.bfloat16)
    p.grad_dtype = None
    optimizer = FusedCyclicSGD([p], 0.1, 0.5, momentum_dtype="float32")
    for gradient in (torch.float32, torch.bfloat16, torch.float16, torch.bfloat16, torch.float32):
        p.grad = torch.randn(7, 3, generator=torch.Generator().manual_seed(1)).to(gradient)
        expected, buffer, largest = stepped_reference(optimizer, p)
        optimizer.step()
        assert torch.allclose(p.detach().double(), expected, rtol=2**-8, atol=0)
        assert torch.allclose(optimizer.state[p]["momentum_buffer"].double(), buffer, rtol=2**-22, atol=0)
        assert torch.isfinite(largest).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.complex64], ids=ids_of)
def test_other_dtypes_are_refused_by_name(dtype: torch.dtype) -> None:
    (p,) = parameters([5])
    p.grad_dtype = None
    p.grad = torch.ones(5, dtype=dtype)
    optimizer = FusedCyclicSGD([p], 0.1, 0.5)
    words = f"gradient: dtype={dtype} must be the parameter's, dtype=torch.float32, or float32, bfloat16 or float16"
    assert_refused(optimizer.step, TypeError, words, optimizer)
