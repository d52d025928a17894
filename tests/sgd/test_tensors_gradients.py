"""Which parameters take part in a step: gradients that are missing, late, frozen, replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from helpers import Beside, bits, buffer_of, clones, every_parameter, follow, gradient_sets, parameters


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
    beside = Beside(optimizer)
    for step, gradients in enumerate(gradient_sets(over, 8)):
        present = [PATTERNS[pattern](step, i) for i in range(4)]
        before = [(bits(p), p._version) for p in over]
        beside.step([g if here else None for g, here in zip(gradients, present, strict=True)])
        beside.assert_same()
        after = [(bits(p), p._version) for p in over]
        assert [a != b for a, b in zip(after, before, strict=True)] == present
    assert optimizer.applied_steps == 8


def test_frozen_and_late_unfrozen_parameters() -> None:
    first = torch.nn.Linear(4, 5)
    model = torch.nn.Sequential(first, torch.nn.Linear(5, 3))
    first.requires_grad_(False)
    optimizer = ours(list(model.parameters()))
    beside = Beside(optimizer)
    frozen = clones(list(first.parameters()))
    for step in range(8):
        if step == 3:
            first.requires_grad_(True)
        if step == 6:
            first.requires_grad_(False)
            frozen = clones(list(first.parameters()))
        optimizer.zero_grad()
        model(torch.ones(2, 4) * (step + 1)).square().mean().backward()
        beside.step([p.grad for p in model.parameters()])
        beside.assert_same()
        if step < 3 or step >= 6:
            assert all(torch.equal(p, q) for p, q in zip(first.parameters(), frozen, strict=True))
    assert buffer_of(optimizer, first.weight) is not None


def test_a_gradient_left_on_a_frozen_parameter_counts_as_in_torch() -> None:
    beside = Beside(ours(parameters([5])))
    for tensor in (*beside.over, *beside.twins):
        tensor.requires_grad_(False)
    beside.step([torch.ones(5)])
    beside.assert_same()


def test_gradients_changed_in_place_are_read_anew() -> None:
    """Two sets in turn, as gradient accumulation into fixed buffers does."""
    over = parameters([5, 70])
    beside = Beside(ours(over))
    fixed = gradient_sets(over, 2)
    for step, fresh in enumerate(gradient_sets(over, 6, seed=9)):
        gradients = fixed[step % 2]
        for gradient, values in zip(gradients, fresh, strict=True):
            gradient.copy_(values)
        beside.step(gradients)
        beside.assert_same()


def test_gradients_that_point_elsewhere_under_the_same_object() -> None:
    """`grad.data = ...` and set_: the object is the same, its memory is not."""
    (weight,) = parameters([50])
    beside = Beside(ours([weight]))
    kept = torch.zeros(50)
    for step, (gradient,) in enumerate(gradient_sets([weight], 6)):
        if step % 2:
            kept.data = gradient.clone()
        else:
            kept.set_(gradient.clone().untyped_storage(), 0, (50,), (1,))
        beside.step([kept])
        beside.assert_same()


def test_one_gradient_for_several_parameters() -> None:
    over = parameters([5, 5, 5])
    follow(ours(over), [[gradient] * 3 for gradient, *_ in gradient_sets(over, 4)])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, 1e-45, 3e38])
def test_special_values_pass_through_as_in_torch(value: float) -> None:
    (weight,) = parameters([37])
    beside = Beside(FusedCyclicSGD([weight], 0.0, 0.4, step_size_up=2))
    (twin,) = beside.twins
    for step in range(4):
        gradient = torch.full((37,), 0.5)
        gradient[step::5] = value
        beside.step([gradient])
        buffers = [each.state[p]["momentum_buffer"] for each, p in ((beside.ours, weight), (beside.theirs, twin))]
        for own, other in ((weight, twin), buffers):
            assert torch.allclose(own, other, rtol=0, atol=0, equal_nan=True)
    assert every_parameter(beside.ours)[0] is weight
