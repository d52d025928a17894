"""Which parameters take part in a step: gradients that are missing, late, frozen, replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from helpers import (
    assert_same_training,
    bits,
    buffer_of,
    clones,
    every_parameter,
    give,
    gradient_sets,
    hand_over,
    parameters,
    sgd_beside,
    train,
)


def ours(over: Sequence[Tensor]) -> FusedCyclicSGD:
    return FusedCyclicSGD(over, 0.05, 0.4, step_size_up=3, weight_decay=0.01, dampening=0.25)


Pattern = Callable[[int, int], bool]
PATTERNS: dict[str, Pattern] = {
    "all": lambda step, i: True,
    "none": lambda step, i: False,
    "first only": lambda step, i: i == 0,
    "last only": lambda step, i: i == 3,
    "one joins each step": lambda step, i: i <= step,
    "one leaves each step": lambda step, i: i >= step,
    "in turns": lambda step, i: step % 4 == i,
    "every other step": lambda step, i: step % 2 == 0,
    "none at first": lambda step, i: step > 2,
}


@pytest.mark.filterwarnings("ignore:3 steps in a row found no gradient")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_parameter_without_gradient_is_left_alone_in_that_step(pattern: str) -> None:
    """Weight, buffer and version counter; its first gradient, whenever it comes, starts its momentum."""
    over = parameters([5, 7, (2, 3), 9])
    optimizer = ours(over)
    theirs, twins = sgd_beside(optimizer)
    for step, gradients in enumerate(gradient_sets(over, 8)):
        present = [PATTERNS[pattern](step, i) for i in range(4)]
        given = [g if here else None for g, here in zip(gradients, present, strict=True)]
        before = [(bits(p), p._version) for p in over]
        give(over, given)
        give(twins, given)
        hand_over(optimizer, theirs)
        optimizer.step()
        theirs.step()
        assert_same_training(optimizer, theirs)
        after = [(bits(p), p._version) for p in over]
        assert [a != b for a, b in zip(after, before, strict=True)] == present
    assert optimizer.applied_steps == 8


def test_frozen_and_late_unfrozen_parameters() -> None:
    first = torch.nn.Linear(4, 5)
    model = torch.nn.Sequential(first, torch.nn.Linear(5, 3))
    first.requires_grad_(False)
    optimizer = ours(list(model.parameters()))
    theirs, twins = sgd_beside(optimizer)
    frozen = clones(list(first.parameters()))
    for step in range(8):
        if step == 3:
            first.requires_grad_(True)
        if step == 6:
            first.requires_grad_(False)
            frozen = clones(list(first.parameters()))
        optimizer.zero_grad()
        model(torch.ones(2, 4) * (step + 1)).square().mean().backward()
        give(twins, [None if p.grad is None else p.grad.clone() for p in model.parameters()])
        hand_over(optimizer, theirs)
        optimizer.step()
        theirs.step()
        assert_same_training(optimizer, theirs)
        if step < 3 or step >= 6:
            assert all(torch.equal(p, q) for p, q in zip(first.parameters(), frozen, strict=True))
    assert buffer_of(optimizer, first.weight) is not None


def test_a_gradient_left_on_a_frozen_parameter_counts_as_in_torch() -> None:
    (weight,) = parameters([5])
    optimizer = ours([weight])
    theirs, (twin,) = sgd_beside(optimizer)
    for tensor in (weight, twin):
        tensor.requires_grad_(False)
        tensor.grad = torch.ones(5)
    hand_over(optimizer, theirs)
    optimizer.step()
    theirs.step()
    assert_same_training(optimizer, theirs)


def test_gradients_are_never_written() -> None:
    over = parameters([5, 70, (3, 4)])
    both: list[dict[str, Any]] = [{"nesterov": True}, {"maximize": True, "weight_decay": 0.5, "dampening": 0.5}]
    for settings in both:
        optimizer = FusedCyclicSGD(over, 0.1, 0.5, **settings)
        sets = gradient_sets(over, 2)
        before = [[(bits(g), g._version) for g in gradients] for gradients in sets]
        train(optimizer, over, sets, 6)
        assert [[(bits(g), g._version) for g in gradients] for gradients in sets] == before


def test_gradients_changed_in_place_are_read_anew() -> None:
    """Two sets in turn, as gradient accumulation into fixed buffers does."""
    over = parameters([5, 70])
    optimizer = ours(over)
    theirs, twins = sgd_beside(optimizer)
    fixed = gradient_sets(over, 2)
    for step, fresh in enumerate(gradient_sets(over, 6, seed=9)):
        gradients = fixed[step % 2]
        for gradient, values in zip(gradients, fresh, strict=True):
            gradient.copy_(values)
        give(over, gradients)
        give(twins, gradients)
        hand_over(optimizer, theirs)
        optimizer.step()
        theirs.step()
        assert_same_training(optimizer, theirs)


def test_gradients_that_point_elsewhere_under_the_same_object() -> None:
    """`grad.data = ...` and set_: the object is the same, its memory is not."""
    (weight,) = parameters([50])
    optimizer = ours([weight])
    theirs, (twin,) = sgd_beside(optimizer)
    weight.grad = torch.zeros(50)
    for step, (gradient,) in enumerate(gradient_sets([weight], 6)):
        if step % 2:
            weight.grad.data = gradient.clone()
        else:
            with torch.no_grad():
                weight.grad.set_(gradient.clone().untyped_storage(), 0, (50,), (1,))
        twin.grad = gradient
        hand_over(optimizer, theirs)
        optimizer.step()
        theirs.step()
        assert_same_training(optimizer, theirs)


def test_one_gradient_for_several_parameters() -> None:
    over = parameters([5, 5, 5])
    optimizer = ours(over)
    theirs, twins = sgd_beside(optimizer)
    for gradient, *_ in gradient_sets(over, 4):
        give(over, [gradient] * 3)
        give(twins, [gradient] * 3)
        hand_over(optimizer, theirs)
        optimizer.step()
        theirs.step()
    assert_same_training(optimizer, theirs)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, 1e-45, 3e38])
def test_special_values_pass_through_as_in_torch(value: float) -> None:
    (weight,) = parameters([37])
    optimizer = FusedCyclicSGD([weight], 0.0, 0.4, step_size_up=2)
    theirs, (twin,) = sgd_beside(optimizer)
    for step in range(4):
        for tensor in (weight, twin):
            tensor.grad = torch.full((37,), 0.5)
            tensor.grad[step::5] = value
        hand_over(optimizer, theirs)
        optimizer.step()
        theirs.step()
        for own, other in ((weight, twin), (buffer_of(optimizer, weight), buffer_of(theirs, twin))):
            assert own is not None
            assert other is not None
            assert torch.allclose(own, other, rtol=0, atol=0, equal_nan=True)
    assert every_parameter(optimizer)[0] is weight
