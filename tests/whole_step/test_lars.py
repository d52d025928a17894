"""LARS: trust ratios against exact norms, the update beside plain torch, and what takes no ratio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from helpers import (
    LAYOUTS,
    Beside,
    assert_same_training,
    assert_setting_refused,
    bits,
    clones,
    every_parameter,
    give,
    go_on,
    gradient_of,
    gradient_sets,
    parameters,
    train,
)
from test_norm import exact_norm

SHAPES = ((17, 5), (3, 4, 2, 2), 65, (), (1, 1), (60, 40))
STEPS = 6


def ours(over: Any, **settings: Any) -> FusedCyclicSGD:
    given: dict[str, Any] = {"trust_coefficient": 0.02, "step_size_up": 3, **settings}
    return FusedCyclicSGD(over, 0.5, 4.0, **given)


# --- beside references --------------------------------------------------------------------------------------


def trust_ratio(group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> float:
    """From norms that are right to the last bit of float64. ``gradient``: as it is after clipping."""
    if group["trust_coefficient"] is None or parameter.dim() < group["trust_min_ndim"]:
        return 1.0
    p, g = float(exact_norm([parameter])), float(exact_norm([gradient]))
    ratio: float = group["trust_coefficient"] * p / (g + group["weight_decay"] * p + group["trust_eps"])
    return ratio if p != 0.0 and g != 0.0 else 1.0


class Reference:
    """LARS in float64 over copies of the parameters of an optimizer; one rounding to the parameter's dtype a step."""

    def __init__(self, optimizer: FusedCyclicSGD) -> None:
        self.optimizer = optimizer
        self.weights = [p.detach().double().clone() for p in every_parameter(optimizer)]
        self.buffers: list[Tensor | None] = [None for _ in self.weights]

    def clipped(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        limit = self.optimizer.max_grad_value
        wide = [g.double() for g in gradients]
        if limit is not None:
            return [g.clamp(-limit, limit) for g in wide]
        if self.optimizer.max_grad_norm is None:
            return wide
        coefficient = min(1.0, self.optimizer.max_grad_norm / (float(exact_norm(gradients)) + 1e-6))
        return [coefficient * g for g in wide]

    def step(self, gradients: Sequence[Tensor]) -> None:
        """With the lr and momentum that stand in the optimizer now."""
        groups = [group for group in self.optimizer.param_groups for _ in group["params"]]
        for i, (group, gradient) in enumerate(zip(groups, self.clipped(gradients), strict=True)):
            p, before = self.weights[i], self.buffers[i]
            g = -gradient if group["maximize"] else gradient
            g = trust_ratio(group, p, g) * (g + group["weight_decay"] * p)
            m = g if before is None else group["momentum"] * before + (1 - group["dampening"]) * g
            self.weights[i] = p - group["lr"] * (g + group["momentum"] * m if group["nesterov"] else m)
            self.buffers[i] = m

    def train(self, sets: Sequence[Sequence[Tensor]]) -> None:
        """Both."""
        for gradients in sets:
            give(every_parameter(self.optimizer), gradients)
            self.step(gradients)
            self.optimizer.step()

    def assert_close(self, relative: float) -> None:
        for p, q in zip(every_parameter(self.optimizer), self.weights, strict=True):
            error = (p.detach().double() - q).abs().max()
            assert error <= relative * (1e-3 + q.abs().max()), f"{error:.1e} of shape {tuple(p.shape)}"


TABLE: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.01},
    {"weight_decay": 0.01, "nesterov": True},
    {"weight_decay": 0.01, "maximize": True},
    {"weight_decay": 0.5, "dampening": 0.3},
    {"weight_decay": 0.01, "max_grad_norm": 0.5},
    {"weight_decay": 0.01, "max_grad_value": 0.05, "nesterov": True},
    {"max_grad_value": 0.05},
    {"trust_eps": 0.5},
    {"trust_eps": 0.0, "weight_decay": 1e-4},
    {"trust_min_ndim": 0},
    {"trust_min_ndim": 1},
    {"trust_min_ndim": 3},
    {"cycle_momentum": False, "momentum": 0.0, "weight_decay": 0.01},
]


@pytest.mark.parametrize("settings", TABLE, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_update_is_that_of_float64(dtype: torch.dtype, settings: dict[str, Any]) -> None:
    over = parameters(SHAPES, dtype)
    optimizer = ours(over, **settings)
    reference = Reference(optimizer)
    reference.train(gradient_sets(over, STEPS))
    reference.assert_close(8 * STEPS * torch.finfo(dtype).eps)
    ratios = {
        trust_ratio(optimizer.param_groups[0], p, g) for p, g in zip(over, gradient_sets(over, 1)[0], strict=True)
    }
    assert len(ratios) > 1


@pytest.mark.parametrize("settings", TABLE[:8], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_weights_are_rounded_once(dtype: torch.dtype, settings: dict[str, Any]) -> None:
    """A first step, from weights and gradients of 16 bits."""
    over = parameters(SHAPES, dtype)
    reference = Reference(ours(over, **settings))
    reference.train(gradient_sets(over, 1))
    for p, q in zip(over, reference.weights, strict=True):
        apart = (p.detach().double() - q).abs()
        half_an_ulp = torch.finfo(dtype).eps / 2 * q.abs() + torch.finfo(dtype).tiny
        assert bool((apart <= half_an_ulp * 1.001 + 1e-6 * q.abs()).all())


@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"dampening": 0.3}, {"maximize": True}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_given_the_ratios_the_weights_are_torchs(dtype: torch.dtype, options: dict[str, Any]) -> None:
    """To the bit: ratio * (g + weight_decay * p) handed to torch's SGD, which has no weight decay then."""
    over = parameters(SHAPES, dtype)
    optimizer = ours(over, weight_decay=0.01, **options)
    beside = Beside(optimizer)
    beside.theirs.param_groups[0]["weight_decay"] = 0.0
    (group,) = optimizer.param_groups
    sign = -1 if group["maximize"] else 1
    for gradients in gradient_sets(over, STEPS):
        give(over, gradients)
        ratios = [trust_ratio(group, p, g) for p, g in zip(over, gradients, strict=True)]
        for twin, g, ratio in zip(beside.twins, gradients, ratios, strict=True):
            decayed = torch.add(sign * g, twin.detach(), alpha=0.01)
            twin.grad = sign * (torch.tensor(ratio, dtype=dtype) * decayed)
        beside.step()
        beside.assert_same()


def test_beside_plain_torch_as_apex_writes_it() -> None:
    """LARC(clip=False) around torch's SGD, with norms in float32, for as far as these carry."""
    over = parameters([(17, 5), (3, 4, 2, 2), (60, 40)])
    optimizer = ours(over, weight_decay=0.01, trust_min_ndim=0)
    beside = Beside(optimizer)
    beside.theirs.param_groups[0]["weight_decay"] = 0.0
    for gradients in gradient_sets(over, STEPS):
        beside.give(gradients)
        for p in beside.twins:
            gradient, weight = gradient_of(p), p.detach()
            weight_norm, gradient_norm = torch.norm(weight), torch.norm(gradient)
            adaptive = 0.02 * weight_norm / (gradient_norm + weight_norm * 0.01 + 1e-8)
            gradient.add_(0.01 * weight).mul_(adaptive)
        beside.step()
    for p, q in zip(over, beside.twins, strict=True):
        assert float((p - q).detach().abs().max()) <= 8 * torch.finfo(torch.float32).eps * float(q.detach().abs().max())
        assert not torch.equal(p, parameters([p.shape])[0])


# --- who takes a ratio --------------------------------------------------------------------------------------


@pytest.mark.parametrize("least", [0, 1, 2, 3, 4, 5, 2**40])
def test_parameters_of_fewer_dimensions_are_excluded(least: int) -> None:
    """They are updated as without LARS, bit for bit; the others are not."""
    start = parameters([(), 5, (3, 4), (2, 3, 4), (2, 2, 2, 2)])
    lars, plain = ours(clones(start), trust_min_ndim=least), ours(clones(start), trust_coefficient=None)
    sets = gradient_sets(start, 3)
    for optimizer in (lars, plain):
        train(optimizer, every_parameter(optimizer), sets, 3)
    same = [bits(p) == bits(q) for p, q in zip(every_parameter(lars), every_parameter(plain), strict=True)]
    assert same == [dimensions < least for dimensions in range(5)]


def test_per_group() -> None:
    start = parameters([(3, 4), (3, 4), (3, 4)])
    groups: list[dict[str, Any]] = [
        {"params": [start[0]]},
        {"params": [start[1]], "trust_coefficient": None},
        {"params": [start[2]], "trust_coefficient": 0.5, "trust_eps": 0.1, "weight_decay": 0.2},
    ]
    optimizer = ours(groups)
    reference = Reference(optimizer)
    reference.train(gradient_sets(start, STEPS))
    reference.assert_close(8 * STEPS * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize(("of_parameter", "of_gradient"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_where_a_norm_is_zero_the_ratio_is_one(of_parameter: float, of_gradient: float, weight_decay: float) -> None:
    start = [p.detach().mul(of_parameter).requires_grad_() for p in parameters([(3, 4)])]
    (gradients,) = gradient_sets(start, 1)
    settings: dict[str, Any] = {"weight_decay": weight_decay, "cycle_momentum": False, "momentum": 0.0}
    found = []
    for coefficient in (0.02, None):
        over = clones(start)
        give(over, [g * of_gradient for g in gradients])
        ours(over, trust_coefficient=coefficient, **settings).step()
        found.append(bits(over[0]))
    assert found[0] == found[1]


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_skip_nonfinite(value: float) -> None:
    over = parameters([(3, 4), 5])
    optimizer = ours(over, skip_nonfinite=True)
    go_on(optimizer, 2)
    before = [bits(p) for p in over]
    give(over, [torch.full_like(p, value) for p in over])
    optimizer.step()
    assert optimizer.last_step_skipped
    assert [bits(p) for p in over] == before


# --- with the rest ------------------------------------------------------------------------------------------


def test_the_average_is_of_the_new_weights() -> None:
    over = parameters([(3, 4), 5])
    optimizer = ours(over, ema_decay=0.75, weight_decay=0.01)
    expected: list[Tensor] = []
    for gradients in gradient_sets(over, 4):
        give(over, gradients)
        optimizer.step()
        before = expected or over  # the first update copies
        expected = [torch.lerp(a.detach(), p.detach(), 0.25) for a, p in zip(before, over, strict=True)]
    assert all(torch.equal(optimizer.state[p]["average"], a) for p, a in zip(over, expected, strict=True))


def test_the_norm_of_all_gradients_is_there_too() -> None:
    over = parameters([(3, 4), 5])
    optimizer, measuring = ours(over), ours(clones(over), trust_coefficient=None, max_grad_norm=float("inf"))
    (gradients,) = gradient_sets(over, 1)
    for each in (optimizer, measuring):
        give(every_parameter(each), gradients)
        each.step()
    assert optimizer.last_grad_norm == measuring.last_grad_norm is not None


@pytest.mark.parametrize("of_gradient", LAYOUTS)
@pytest.mark.parametrize("of_parameter", [layout for layout in LAYOUTS if layout != "expanded"])
def test_norms_are_read_right_in_every_layout(of_parameter: str, of_gradient: str) -> None:
    """As from dense copies of the same values."""
    start = parameters([(4, 3, 2, 5)])
    turned = [LAYOUTS[of_parameter](start[0].detach()).requires_grad_()]
    dense = clones([p.detach().contiguous().requires_grad_() for p in turned])
    first, second = ours(turned, weight_decay=0.01), ours(dense, weight_decay=0.01)
    for (gradient,) in gradient_sets(start, 3):
        turned[0].grad = LAYOUTS[of_gradient](gradient)
        dense[0].grad = turned[0].grad.contiguous()
        first.step()
        second.step()
        assert_same_training(first, second)
        assert first.last_grad_norm == second.last_grad_norm


# --- wrong values -------------------------------------------------------------------------------------------

WRONG: list[tuple[str, object, type[Exception]]] = [
    *(("trust_coefficient", value, ValueError) for value in (0, 0.0, -1.0, float("nan"), float("inf"))),
    *(("trust_coefficient", value, TypeError) for value in ("1", [1.0], torch.tensor(1.0))),
    *(("trust_eps", value, ValueError) for value in (-1e-8, float("nan"), float("inf"))),
    *(("trust_eps", value, TypeError) for value in (None, "0", torch.tensor(0.0))),
    *(("trust_min_ndim", value, ValueError) for value in (-1, 1.5, None, "2", 2**64)),
]


@pytest.mark.parametrize(("name", "value", "error"), WRONG, ids=lambda each: str(each)[:30])
def test_a_wrong_value_is_named_and_nothing_has_changed(name: str, value: object, error: type[Exception]) -> None:
    assert_setting_refused(ours, parameters([(3, 4)]), {name: value}, error, f"parameter group 0: {name}=")
