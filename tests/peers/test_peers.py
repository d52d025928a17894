"""Faults of today's systems that must not be ours: every line marked T under "Fused and foreach SGD" in peers.md.

Those on AMP are in test_peers_amp.py. Others stand elsewhere: gradients of another shape in test_tensors_rejected.py,
how torch.distributed asks for state in test_state_distributed.py, 16-bit buffers after loading in test_half_resume.py.

Beside each, where it is safe to show, the fault in the installed torch; skipped where that has been mended.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from amp_helpers import fused, loop, mended, ours
from clr_native import FusedCyclicSGD
from helpers import assert_same_training, buffer_of, clones, give, gradient_of, gradient_sets, parameters, raised

HALVES = [torch.bfloat16, torch.float16]
Make = Callable[[list[Tensor]], Any]


# --- each fault is a function of who makes the optimizer, and True where it is there ---------------------------


def leaves_16bit_elements_where_they_are(make: Make) -> bool:
    """CPU fused: the vector body never stores the parameter (pytorch#191763). Sizes past two vectors, every lane."""
    found = False
    for dtype, misaligned in itertools.product(HALVES, (0, 1, 7)):
        over = [torch.ones(n + misaligned, dtype=dtype)[misaligned:].requires_grad_() for n in [*range(140), 1000]]
        optimizer = make(over)
        for _ in range(2):
            before = clones(over)
            give(over, [torch.ones_like(p) for p in over])
            optimizer.step()
            found |= any(torch.any(new == old) for new, old in zip(over, before, strict=True))
    return found


def mixes_up_layouts(make: Make) -> bool:
    """CPU fused checks no stride: a channels_last weight with a contiguous gradient."""
    (start,) = parameters([(4, 3, 2, 5)])
    weight = start.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    (plain,) = clones([start])
    weight.grad = torch.randn(4, 3, 2, 5)
    plain.grad = weight.grad.clone()
    optimizer, theirs = make([weight]), loop([plain])
    theirs.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"]
    optimizer.step()
    theirs.step()
    return not torch.equal(weight, plain)


def writes_into_gaps(make: Make) -> bool:
    """CPU fused, of a strided view."""
    memory = torch.ones(64, 4)
    weight = memory[:32, :2].detach().requires_grad_()
    weight.grad = torch.ones(32, 2)
    make([weight]).step()
    return bool(torch.any(memory[:32, 2:] != 1) or torch.any(memory[32:] != 1))


def cannot_start_late(make: Make) -> bool:
    """CPU fused raises TypeError where a parameter gets its first gradient later, or none in some step."""
    lives = []
    for each in (make, loop):
        over = parameters([9, 9, 9])
        optimizer = each(over)
        for step, gradients in enumerate(gradient_sets(over, 6)):
            give(over, [g if (step + i) % 3 else None for i, g in enumerate(gradients)])
            if isinstance(raised(optimizer.step), TypeError):
                return True
        lives.append(optimizer)
    assert_same_training(*lives)
    return False


def changes_the_gradient(make: Make) -> bool:
    """foreach with nesterov and no weight decay, in place."""
    over = parameters([9, 9])
    optimizer = make(over)
    for _ in range(2):
        give(over, [torch.ones(9), torch.ones(9)])
        optimizer.step()
    return bool(torch.any(gradient_of(over[0]) != 1))


def goes_unnoticed_by_autograd(make: Make) -> bool:
    """fused does not bump version counters."""
    weight = torch.ones(4, requires_grad=True)
    optimizer = make([weight])
    loss = (weight**2).sum()
    weight.grad = torch.ones(4)
    optimizer.step()
    error = raised(loss.backward)
    assert error is None or "modified by an inplace operation" in str(error)
    return error is None


def rounds_float32_state(make: Make) -> bool:
    """Optimizer.load_state_dict casts state that somebody keeps beside a 16-bit weight to the parameter's dtype."""
    found = False
    for dtype in HALVES:
        (weight,) = parameters([3], dtype)
        optimizer = make([weight])
        optimizer.state[weight]["sum of squares"] = torch.full((3,), 1.0 + 2.0**-20)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        kept = optimizer.state[weight]["sum of squares"]
        found |= kept.dtype is not torch.float32 or bool(torch.any(kept != 1.0 + 2.0**-20))
    return found


def lets_the_buffer_go_stale(make: Make) -> bool:
    """At momentum 0 in a group, or a cycle that touches 0, the buffer is skipped. It should be the gradient then."""
    (weight,) = parameters([9])
    optimizer = make([weight])
    for momentum, (gradient,) in zip((0.5, 0.0, 0.5, 0.0, 0.5, 0.0), gradient_sets([weight], 6), strict=True):
        optimizer.param_groups[0]["momentum"] = momentum
        before = buffer_of(optimizer, weight)
        expected = gradient if before is None else momentum * before + gradient
        weight.grad = gradient
        optimizer.step()
        if not torch.equal(optimizer.state[weight]["momentum_buffer"], expected):
            return True
    return False


def constant(over: list[Tensor]) -> FusedCyclicSGD:
    return FusedCyclicSGD(over, 0.25, 0.25, cycle_momentum=False)


def touching_zero(over: list[Tensor]) -> FusedCyclicSGD:
    return FusedCyclicSGD(over, 0.25, 0.5, step_size_up=1, base_momentum=0.0, max_momentum=0.5)


def foreach_nesterov(over: list[Tensor]) -> SGD:
    return SGD(over, lr=0.1, momentum=0.9, nesterov=True, foreach=True)


FAULTS: list[tuple[Callable[[Make], bool], Make, Make]] = [
    (leaves_16bit_elements_where_they_are, ours, fused),
    (mixes_up_layouts, ours, fused),
    (writes_into_gaps, ours, fused),
    (cannot_start_late, constant, fused),
    (changes_the_gradient, partial(ours, nesterov=True), foreach_nesterov),
    (goes_unnoticed_by_autograd, ours, fused),
    (rounds_float32_state, ours, loop),
    (lets_the_buffer_go_stale, touching_zero, loop),
]
NAMES = [fault.__name__ for fault, *_ in FAULTS]


@pytest.mark.parametrize(("fault", "mine", "torchs"), FAULTS, ids=NAMES)
def test_ours_does_not(fault: Callable[[Make], bool], mine: Make, torchs: Make) -> None:
    assert not fault(mine)


@pytest.mark.parametrize(("fault", "mine", "torchs"), FAULTS, ids=NAMES)
def test_torchs_does(fault: Callable[[Make], bool], mine: Make, torchs: Make) -> None:
    if not fault(torchs):
        mended(fault.__name__)
