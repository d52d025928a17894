"""Momentum that becomes zero, starts late, or is one: the buffer always holds what the next update needs."""

from __future__ import annotations

import torch

from clr_native import FusedCyclicSGD
from helpers import assert_same_training, buffer_of, gradient_sets, hand_over, parameters, sgd_beside, train


def test_a_buffer_is_kept_up_when_a_groups_momentum_becomes_zero() -> None:
    (weight,) = parameters([9])
    optimizer = FusedCyclicSGD([weight], 0.25, 0.5, cycle_momentum=False, momentum=0.5)
    sets = gradient_sets([weight], 4)
    for momentum, gradients in zip((0.5, 0.0, 0.0, 0.5), sets, strict=True):
        optimizer.param_groups[0]["momentum"] = momentum
        train(optimizer, [weight], [gradients], 1)
    buffer = buffer_of(optimizer, weight)
    assert buffer is not None
    assert torch.equal(buffer, 0.5 * sets[2][0] + sets[3][0])


def test_a_group_that_starts_without_momentum_starts_it_later() -> None:
    (weight,) = parameters([9])
    optimizer = FusedCyclicSGD([weight], 0.25, 0.5, cycle_momentum=False, momentum=0.0)
    theirs, (twin,) = sgd_beside(optimizer)
    for momentum, (gradient,) in zip((0.0, 0.0, 0.5, 0.5), gradient_sets([weight], 4), strict=True):
        optimizer.param_groups[0]["momentum"] = momentum
        hand_over(optimizer, theirs)
        weight.grad = twin.grad = gradient
        optimizer.step()
        theirs.step()
        assert (buffer_of(optimizer, weight) is None) == (momentum == 0.0)
    assert_same_training(optimizer, theirs)


def test_momentum_one_sums_all_gradients() -> None:
    (weight,) = parameters([9])
    optimizer = FusedCyclicSGD([weight], 0.25, 0.5, cycle_momentum=False, momentum=1.0)
    sets = gradient_sets([weight], 5)
    train(optimizer, [weight], sets, 5)
    total = sets[0][0].clone()
    for (gradient,) in sets[1:]:
        total += gradient
    assert torch.equal(optimizer.state[weight]["momentum_buffer"], total)


def test_the_first_update_ignores_dampening() -> None:
    """The buffer starts as the gradient itself, as in torch."""
    (weight,) = parameters([9])
    optimizer = FusedCyclicSGD([weight], 0.25, 0.5, dampening=0.75)
    weight.grad = torch.ones(9)
    optimizer.step()
    assert torch.equal(optimizer.state[weight]["momentum_buffer"], torch.ones(9))


def test_other_state_of_a_parameter_is_left_alone() -> None:
    (weight,) = parameters([9])
    optimizer = FusedCyclicSGD([weight], 0.25, 0.5)
    optimizer.state[weight]["mine"] = mine = object()
    train(optimizer, [weight], gradient_sets([weight]), 3)
    assert optimizer.state[weight].keys() == {"mine", "momentum_buffer"}
    assert optimizer.state[weight]["mine"] is mine


def test_a_cycle_that_starts_at_zero_keeps_a_buffer_from_the_start() -> None:
    (weight,) = parameters([9])
    optimizer = FusedCyclicSGD([weight], 0.25, 0.5, step_size_up=1, base_momentum=0.0, max_momentum=0.5)
    optimizer.seek(1)
    assert optimizer.get_last_momentum() == [0.0]
    sets = gradient_sets([weight], 2)
    train(optimizer, [weight], sets, 2)
    assert torch.equal(optimizer.state[weight]["momentum_buffer"], 0.5 * sets[0][0] + sets[1][0])
