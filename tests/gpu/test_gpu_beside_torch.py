"""One step on a GPU, ours and each of torch's, against exact arithmetic.

Nobody promises that torch's CUDA kernels round as its CPU does: nvcc may contract what they multiply and add. What must
hold is that each result is the exact one up to its own roundings. With u half an ulp of 1, an element of the new weight
comes out of at most twelve of them in a row: weight decay is rounded to the dtype, multiplied, added; so are
1 - dampening, momentum under nesterov and the learning rate. So it is within gamma(12) of the sum of the sizes of its
terms, gamma(k) = k u / (1 - k u) (Higham 2002, lemma 3.1), whichever of the operations are fused. A buffer has six.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CyclicLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from clr_native import FusedCyclicSGD
from hardware import Hardware
from helpers import buffer_of, give, gradient_sets, parameters
from schedulers import bound

pytestmark = pytest.mark.cuda

SHAPES: list[int | tuple[int, ...]] = [1, 17, (3, 5), 130]
STEPS = 5
UP = 3
KINDS: dict[str, dict[str, Any]] = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight decay": {"weight_decay": 0.01},
    "nesterov": {"weight_decay": 0.01, "nesterov": True},
    "dampening": {"weight_decay": 0.01, "dampening": 0.25},
    "maximize": {"maximize": True},
}


def gamma(roundings: int, dtype: torch.dtype) -> Fraction:
    u = Fraction(torch.finfo(dtype).eps) / 2
    return roundings * u / (1 - roundings * u)


def exact(tensor: Tensor) -> list[Fraction]:
    return [Fraction(x) for x in tensor.detach().double().cpu().reshape(-1).tolist()]


def next_values(optimizer: Optimizer, parameter: Tensor) -> list[tuple[Fraction, Fraction, Fraction, Fraction]]:
    """Of each element after the next update: weight and buffer, and for each the sum of the sizes of its terms."""
    group = optimizer.param_groups[0]
    lr, momentum, decay, rest = (
        Fraction(value) for value in (group["lr"], group["momentum"], group["weight_decay"], 1 - group["dampening"])
    )
    before = buffer_of(optimizer, parameter)
    assert parameter.grad is not None
    weights, gradients = exact(parameter), exact(parameter.grad)
    buffers = [None] * len(weights) if before is None else exact(before)
    values = []
    for p, given, kept in zip(weights, gradients, buffers, strict=True):
        g = (-given if group["maximize"] else given) + decay * p
        size = abs(given) + decay * abs(p)
        m, buffer_size = g, size
        if kept is not None:
            m, buffer_size = momentum * kept + rest * g, momentum * abs(kept) + rest * size
        d, step_size = (g + momentum * m, size + momentum * buffer_size) if group["nesterov"] else (m, buffer_size)
        values.append((p - lr * d, abs(p) + lr * step_size, m, buffer_size))
    return values


def assert_rounded(optimizer: Optimizer, parameter: Tensor, wanted: list[tuple[Fraction, ...]], what: str) -> None:
    buffer = buffer_of(optimizer, parameter)
    assert buffer is not None
    found = zip(exact(parameter), exact(buffer), wanted, strict=True)
    for i, (weight, momentum, (p, size, m, buffer_size)) in enumerate(found):
        assert abs(weight - p) <= gamma(12, parameter.dtype) * size, f"{what}: weight {i}"
        assert abs(momentum - m) <= gamma(6, parameter.dtype) * buffer_size, f"{what}: buffer {i}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_steps_under_cyclic_lr(hardware: Hardware, kind: str, settings: dict[str, Any], dtype: torch.dtype) -> None:
    made = parameters(SHAPES, dtype)
    sets = [[hardware.copy(g) for g in gradients] for gradients in gradient_sets(made, STEPS)]
    own, other = ([hardware.copy(p.detach()).requires_grad_() for p in made] for _ in range(2))
    ours = FusedCyclicSGD(own, 0.01, 0.1, step_size_up=UP, **settings)
    theirs = SGD(other, lr=0.01, momentum=0.9, **KINDS[kind], **settings)
    schedule = CyclicLR(theirs, 0.01, 0.1, step_size_up=UP)
    for step in range(STEPS):
        lr, momentum = ours.param_groups[0]["lr"], ours.param_groups[0]["momentum"]
        assert abs(lr - theirs.param_groups[0]["lr"]) <= bound(0.01, 0.1, UP, UP, step)
        assert abs(momentum - theirs.param_groups[0]["momentum"]) <= bound(0.8, 0.9, UP, UP, step)
        for optimizer, over in ((ours, own), (theirs, other)):
            give(over, [g.clone() for g in sets[step]])
            wanted = [next_values(optimizer, parameter) for parameter in over]
            optimizer.step()
            name = "ours" if optimizer is ours else kind
            for parameter, values in zip(over, wanted, strict=True):
                assert_rounded(optimizer, parameter, list(values), f"{name}, step {step}, {tuple(parameter.shape)}")
        schedule.step()
        assert ours.get_last_lr() == [ours.param_groups[0]["lr"]]  # the device's count is the host's


def test_moving_averages(hardware: Hardware) -> None:
    """torch's multi-tensor average of the very weights that ours averages.

    An average a moves to a + w (p - a), four roundings in a row, so it errs by gamma(4) (|a| + w (|a| + |p|)) a step,
    at most gamma(5) (1 + 2 w) S for weights that have never been larger than S; what it was off by before is multiplied
    by 1 - w.
    """
    model = torch.nn.ParameterList([hardware.copy(p.detach()) for p in parameters(SHAPES)])
    over = list(model.parameters())
    w = 0.25
    ours = FusedCyclicSGD(over, 0.01, 0.1, step_size_up=UP, ema_decay=1 - w)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(1 - w))  # type: ignore[no-untyped-call]  # no types
    largest = [torch.zeros_like(p) for p in over]
    for gradients in gradient_sets(over, STEPS):
        give(over, [hardware.copy(g) for g in gradients])
        ours.step()
        average.update_parameters(model)
        for size, p in zip(largest, over, strict=True):
            torch.maximum(size, p.detach().abs(), out=size)
    limit = float(2 * gamma(5, torch.float32) * Fraction(1 + 2 * w) / Fraction(w))  # of both sides
    for p, theirs, size in zip(over, average.module.parameters(), largest, strict=True):
        assert bool(((ours.state[p]["average"] - theirs).abs() <= limit * size).all())
