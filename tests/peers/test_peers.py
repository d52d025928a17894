"""Faults of today's systems that must not be ours: every line marked T under "Fused and foreach SGD" in peers.md.

Those on AMP are in test_peers_amp.py.

Beside each, where it is safe to show, the fault in the installed torch; skipped where that has been mended.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from clr_native import FusedCyclicSGD
from helpers import (
    assert_same_training,
    bits,
    buffer_of,
    clones,
    every_parameter,
    give,
    gradient_sets,
    parameters,
    raised,
    train,
)

HALVES = [torch.bfloat16, torch.float16]


def ours(over: list[Tensor], **settings: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(over, 0.25, 0.5, step_size_up=3, **settings)


def loop(over: list[Tensor], **settings: Any) -> SGD:
    return SGD(over, lr=0.25, momentum=0.9, foreach=False, **settings)


def fused(over: list[Tensor], **settings: Any) -> SGD:
    return SGD(over, lr=0.25, momentum=0.9, fused=True, **settings)


def mended(what: str) -> None:
    pytest.skip(f"torch {torch.__version__} has mended this: {what}")


# CPU fused, bf16 or fp16: the vector body never stores the parameter (pytorch#191763).


@pytest.mark.parametrize("misaligned", [0, 1, 7])
@pytest.mark.parametrize("dtype", HALVES)
def test_16bit_vector_body_stores_the_parameter(dtype: torch.dtype, misaligned: int) -> None:
    """Non-zero gradients, sizes from 0 past two vectors of any width, every lane."""
    over = [torch.ones(n + misaligned, dtype=dtype)[misaligned:].requires_grad_() for n in [*range(140), 1000]]
    optimizer = ours(over)
    for _ in range(2):
        before = clones(over)
        give(over, [torch.ones_like(p) for p in over])
        optimizer.step()
        assert all(torch.all(new != old) for new, old in zip(over, before, strict=True))


@pytest.mark.parametrize("dtype", HALVES)
def test_torch_16bit_vector_body_does_not(dtype: torch.dtype) -> None:
    weight = torch.ones(1000, dtype=dtype, requires_grad=True)
    weight.grad = torch.ones(1000, dtype=dtype)
    fused([weight]).step()
    if torch.all(weight != 1):
        mended("every element moves")
    assert (weight == 1).sum() > 900


# torch.distributed asks for a state dict by a step with lr 0 and zero gradients.


def test_a_step_with_lr_zero_and_zero_gradients_moves_no_weight_and_no_counter() -> None:
    over = parameters([9, (3, 4)])
    optimizer = ours(over, weight_decay=0.5, nesterov=True)
    before = clones(over)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    give(over, [torch.zeros_like(p) for p in over])
    optimizer.step(closure=None)
    assert all(bits(p) == bits(q) for p, q in zip(over, before, strict=True))
    assert optimizer.applied_steps == 0
    assert optimizer.state_dict().keys() == {"state", "param_groups"}
    optimizer.load_state_dict(state_dict=optimizer.state_dict())


# Optimizer.load_state_dict casts floating state to the parameter's dtype.


def with_float32_state(optimizer: torch.optim.Optimizer) -> Tensor:
    """State that somebody keeps in float32 beside a 16-bit weight."""
    (weight,) = every_parameter(optimizer)
    optimizer.state[weight]["sum of squares"] = torch.full((3,), 1.0 + 2.0**-20)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    found: Tensor = optimizer.state[weight]["sum of squares"]
    return found


@pytest.mark.parametrize("dtype", HALVES)
def test_loading_does_not_round_float32_state(dtype: torch.dtype) -> None:
    average = with_float32_state(ours(parameters([3], dtype)))
    assert average.dtype is torch.float32
    assert torch.all(average == 1.0 + 2.0**-20)


@pytest.mark.parametrize("dtype", HALVES)
def test_loading_keeps_16bit_buffers_to_the_bit(dtype: torch.dtype) -> None:
    over = parameters([9], dtype)
    optimizer = ours(over)
    train(optimizer, over, gradient_sets(over), 3)
    before = bits(optimizer.state[over[0]]["momentum_buffer"])
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert bits(optimizer.state[over[0]]["momentum_buffer"]) == before


def test_torch_rounds_it() -> None:
    if with_float32_state(loop(parameters([3], torch.bfloat16))).dtype is torch.float32:
        mended("state keeps its dtype")


# CPU fused checks no shape, stride or layout.


def turned(layout: Callable[[Tensor], Tensor], make: Callable[[list[Tensor]], Any]) -> tuple[Tensor, Tensor]:
    """A weight after a step, and what it should be."""
    (start,) = parameters([(4, 3, 2, 5)])
    weight = layout(start.detach()).requires_grad_()
    plain = start.detach().clone().requires_grad_()
    gradient = torch.randn(4, 3, 2, 5)
    weight.grad, plain.grad = gradient, gradient.clone()
    optimizer = make([weight])
    theirs = loop([plain])
    theirs.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"]
    optimizer.step()
    theirs.step()
    return weight.detach(), plain.detach()


def channels_last(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last)


def test_channels_last_weight_with_contiguous_gradient() -> None:
    assert torch.equal(*turned(channels_last, ours))


def test_torch_fused_mixes_them_up() -> None:
    if torch.equal(*turned(channels_last, fused)):
        mended("layouts are matched")


def gaps_after(make: Callable[[list[Tensor]], Any]) -> Tensor:
    memory = torch.ones(64, 4)
    weight = memory[:32, :2].detach().requires_grad_()
    weight.grad = torch.ones(32, 2)
    make([weight]).step()
    return torch.cat([memory[:32, 2:].flatten(), memory[32:].flatten()])


def test_gaps_of_a_strided_view_are_left_alone() -> None:
    assert torch.all(gaps_after(ours) == 1)


def test_torch_fused_writes_into_them() -> None:
    if torch.all(gaps_after(fused) == 1):
        mended("gaps are left alone")


def test_a_short_gradient_is_refused() -> None:
    """torch fused reads past its end: not shown here."""
    (weight,) = parameters([100])
    weight.grad = torch.zeros(100)
    weight.grad.data = torch.zeros(3)
    before = bits(weight)
    with pytest.raises(ValueError, match=r"shape=torch.Size\(\[3\]\)"):
        ours([weight]).step()
    assert bits(weight) == before


# A parameter that gets its first gradient later, or none in some step.


def lives_with_gaps(make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> torch.optim.Optimizer:
    over = parameters([9, 9, 9])
    optimizer = make(over)
    for step, gradients in enumerate(gradient_sets(over, 6)):
        give(over, [g if (step + i) % 3 else None for i, g in enumerate(gradients)])
        optimizer.step()
    return optimizer


def test_a_late_first_gradient_and_none_in_some_step() -> None:
    found = lives_with_gaps(lambda over: FusedCyclicSGD(over, 0.25, 0.25, cycle_momentum=False))
    assert_same_training(found, lives_with_gaps(loop))


def test_torch_fused_raises_type_error() -> None:
    error = raised(lambda: lives_with_gaps(fused))
    if error is None:
        mended("late gradients start their momentum")
    assert isinstance(error, TypeError)


# foreach with nesterov and no weight decay changes p.grad in place.


def gradient_after_two_steps(make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> Tensor:
    over = parameters([9, 9])
    optimizer = make(over)
    for _ in range(2):
        give(over, [torch.ones(9), torch.ones(9)])
        optimizer.step()
    assert over[0].grad is not None
    return over[0].grad


def test_nesterov_leaves_the_gradient_alone() -> None:
    assert torch.all(gradient_after_two_steps(lambda over: ours(over, nesterov=True)) == 1)


def test_torch_foreach_nesterov_does_not() -> None:
    found = gradient_after_two_steps(lambda over: SGD(over, lr=0.1, momentum=0.9, nesterov=True, foreach=True))
    if torch.all(found == 1):
        mended("gradients are left alone")


# fused does not bump version counters.


def backward_after_step(make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> Exception | None:
    weight = torch.ones(4, requires_grad=True)
    optimizer = make([weight])
    loss = (weight**2).sum()
    weight.grad = torch.ones(4)
    optimizer.step()
    return raised(loss.backward)


def test_a_weight_modified_in_place_is_noticed() -> None:
    error = backward_after_step(ours)
    assert isinstance(error, RuntimeError)
    assert "modified by an inplace operation" in str(error)


def test_torch_fused_goes_unnoticed() -> None:
    if backward_after_step(fused) is not None:
        mended("version counters are bumped")


# Momentum 0 in a group, or a cycle that touches 0: the buffer is skipped and goes stale.


def test_a_buffer_is_kept_up_while_momentum_touches_zero() -> None:
    """At momentum 0 the buffer is the gradient, so the next update's momentum is of this one."""
    (weight,) = parameters([9])
    optimizer = FusedCyclicSGD([weight], 0.25, 0.5, step_size_up=1, base_momentum=0.0, max_momentum=0.5)
    found = []
    for number, (gradient,) in enumerate(gradient_sets([weight], 6)):
        momentum = optimizer.get_last_momentum()[0]
        assert momentum == (0.0 if number % 2 else 0.5)
        before = buffer_of(optimizer, weight)
        expected = gradient if before is None else momentum * before + gradient
        weight.grad = gradient
        optimizer.step()
        after = buffer_of(optimizer, weight)
        assert after is not None
        assert torch.equal(after, expected)
        found.append(momentum)
    assert 0.0 in found


def test_torch_lets_it_go_stale() -> None:
    (weight,) = parameters([9])
    theirs = loop([weight])
    sets = gradient_sets([weight], 2)
    train(theirs, [weight], sets, 1)
    theirs.param_groups[0]["momentum"] = 0.0
    train(theirs, [weight], sets, 1, start=1)
    if torch.equal(theirs.state[weight]["momentum_buffer"], sets[1][0]):
        mended("the buffer is kept up")
