"""Momentum that becomes zero or starts late: the buffer always holds what the next update needs."""

from __future__ import annotations

import torch

from clr_native import FusedCyclicSGD
from helpers import Beside, buffer_of, gradient_sets, parameters, train


def test_a_buffer_is_kept_up_when_a_groups_momentum_becomes_zero() -> None:
    (weight,) = parameters([9])
    optimizer = FusedCyclicSGD([weight], 0.25, 0.5, cycle_momentum=False, momentum=0.5)
    sets = gradient_sets([weight], 4)
    for momentum, gradients in zip((0.5, 0.0, 0.0, 0.5), sets, strict=True):
        optimizer.param_groups[0]["momentum"] = momentum
        train(optimizer, [weight], [gradients], 1)
    assert torch.equal(optimizer.state[weight]["momentum_buffer"], 0.5 * sets[2][0] + sets[3][0])


def test_a_group_that_starts_without_momentum_starts_it_later() -> None:
    (weight,) = parameters([9])
    optimizer = FusedCyclicSGD([weight], 0.25, 0.5, cycle_momentum=False, momentum=0.0)
    beside = Beside(optimizer)
    for momentum, gradients in zip((0.0, 0.0, 0.5, 0.5), gradient_sets([weight], 4), strict=True):
        optimizer.param_groups[0]["momentum"] = momentum
        beside.step(gradients)
        assert (buffer_of(optimizer, weight) is None) == (momentum == 0.0)
    beside.assert_same()


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
