"""Faults of today's systems under AMP that must not be ours: every line on AMP marked T in peers.md.

Beside each, where it is cheap to show, the fault in the installed torch; skipped where that has been mended.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR

from amp_helpers import INF, NAN, SCALERS, fused, loop, mended, ours, scaled
from helpers import bits, buffer_of, clones, every_parameter, give, go_on, parameters, picture, raised


def scaled_step(optimizer: Optimizer, scaler: torch.amp.GradScaler, value: float = INF) -> None:
    give(every_parameter(optimizer), [torch.full_like(p, value) for p in every_parameter(optimizer)])
    scaler.step(optimizer)
    scaler.update()


# Overflow on the very first step: the buffer is empty_like, the kernel returns early, the next step reads garbage.


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize(
    "settings", [{}, {"nesterov": True}, {"dampening": 0.5}], ids=["plain", "nesterov", "dampening"]
)
def test_overflow_on_the_very_first_step_makes_no_buffer(
    settings: dict[str, Any], kind: type[torch.amp.GradScaler]
) -> None:
    optimizer, scaler = ours(parameters([9, 9]), ema_decay=0.9, **settings), scaled(kind)
    before = clones(every_parameter(optimizer))
    scaled_step(optimizer, scaler)
    for p, q in zip(every_parameter(optimizer), before, strict=True):
        assert bits(p) == bits(q)
        assert buffer_of(optimizer, p) is None
        assert optimizer.state.get(p, {}).get("average") is None
    scaled_step(optimizer, scaler, 4.0)  # at scale 4
    for p in every_parameter(optimizer):
        assert torch.all(optimizer.state[p]["momentum_buffer"] == 1.0)


def test_torch_fused_makes_one_of_garbage() -> None:
    optimizer = fused(parameters([9]))
    scaled_step(optimizer, scaled())
    if buffer_of(optimizer, every_parameter(optimizer)[0]) is None:
        mended("a skipped first step leaves no buffer")


# found_inf is summed over devices and ranks, and may be NaN: everything but 0 skips. With grad_scale None too. Two
# optimizers with overflows on one scaler stand in test_whole_step_beside_torch.py.


def step_told(optimizer: Optimizer, found_inf: object, grad_scale: object) -> None:
    """As torch's scaler tells an optimizer, with finite gradients."""
    give(every_parameter(optimizer), [torch.ones_like(p) for p in every_parameter(optimizer)])
    vars(optimizer).update(found_inf=found_inf, grad_scale=grad_scale)
    try:
        optimizer.step()
    finally:
        vars(optimizer).pop("found_inf")
        vars(optimizer).pop("grad_scale")


@pytest.mark.parametrize("grad_scale", [None, torch.tensor(8.0)])
@pytest.mark.parametrize("found_inf", [1.0, 2.0, NAN, INF, 0.5, -1.0])
@pytest.mark.parametrize("wrap", [torch.tensor, float])
def test_every_found_inf_but_zero_skips(wrap: Callable[[float], object], found_inf: float, grad_scale: object) -> None:
    optimizer = ours(parameters([9]))
    before = clones(every_parameter(optimizer))
    step_told(optimizer, wrap(found_inf), grad_scale)
    assert bits(every_parameter(optimizer)[0]) == bits(before[0])
    assert optimizer.last_step_skipped
    step_told(optimizer, wrap(0.0), grad_scale)
    assert bits(every_parameter(optimizer)[0]) != bits(before[0])
    assert not optimizer.last_step_skipped


@pytest.mark.parametrize("found_inf", [2.0, NAN])
def test_torch_fused_compares_with_one(found_inf: float) -> None:
    optimizer = fused(parameters([9]))
    before = clones(every_parameter(optimizer))
    step_told(optimizer, torch.tensor(found_inf), torch.tensor(8.0))
    if bits(every_parameter(optimizer)[0]) == bits(before[0]):
        mended(f"found_inf={found_inf} skips")


# fused does not bump version counters; a skipped step must not.


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_skipped_step_changes_nothing_but_its_count(by_hand: bool, kind: type[torch.amp.GradScaler]) -> None:
    over = parameters([9, (3, 4)])
    optimizer = ours(over, weight_decay=0.1, ema_decay=0.9)
    scaler = scaled(kind)
    go_on(optimizer, 3)
    assert not optimizer.last_step_skipped
    give(over, [torch.full_like(p, NAN) for p in over])
    if by_hand:
        scaler.unscale_(optimizer)
    before = picture(optimizer)
    scaler.step(optimizer)
    after = picture(optimizer)
    assert optimizer.last_step_skipped
    for description in (before, after):
        (group,) = description["groups"]
        group.pop("skipped_steps")
    if kind is torch.amp.GradScaler and not by_hand:  # its pass multiplies every gradient by one
        before.pop("gradient versions"), after.pop("gradient versions")
    assert after == before
    assert optimizer.skipped_steps == 1


# A checkpoint of plain SGD loaded: the next scaler.step raises AssertionError.


def scaled_step_after_loading(make: Callable[[list[Tensor]], Optimizer], kind: type[torch.amp.GradScaler]) -> None:
    theirs = loop(parameters([9]))
    go_on(theirs, 2)
    optimizer = make(clones(every_parameter(theirs)))
    optimizer.load_state_dict(copy.deepcopy(theirs.state_dict()))
    (weight,) = every_parameter(optimizer)
    before = weight.detach().clone()
    scaled_step(optimizer, scaled(kind), 8.0)
    assert not torch.equal(weight, before)


@pytest.mark.parametrize("kind", SCALERS)
def test_a_scaled_step_after_loading_plain_sgd(kind: type[torch.amp.GradScaler]) -> None:
    scaled_step_after_loading(ours, kind)


def test_torch_fused_fails_there() -> None:
    error = raised(lambda: scaled_step_after_loading(fused, torch.amp.GradScaler))
    if error is None:
        mended("plain SGD's checkpoint loads")
    assert isinstance(error, AssertionError)


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize("source", [loop, fused, ours])
def test_a_scaled_step_after_loading_any_checkpoint_goes_on(
    source: Callable[[list[Tensor]], Optimizer], kind: type[torch.amp.GradScaler]
) -> None:
    """Loaded between steps, right after a skipped one: the buffer is the checkpoint's."""
    first = source(parameters([9]))
    go_on(first, 2)
    optimizer, scaler = ours(parameters([9])), scaled(kind)
    scaled_step(optimizer, scaler)
    optimizer.load_state_dict(copy.deepcopy(first.state_dict()))
    (momentum,) = optimizer.get_last_momentum()
    scaled_step(optimizer, scaler, 4.0)
    loaded, buffer = (each.state[every_parameter(each)[0]]["momentum_buffer"] for each in (first, optimizer))
    assert torch.equal(buffer, torch.ones(9) + momentum * loaded)


# The lr advances on steps that AMP skipped (pytorch#44511, #55585, accelerate#4242).


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize("advance", [False, True])
def test_the_schedule_waits_for_a_step_that_is_applied(advance: bool, kind: type[torch.amp.GradScaler]) -> None:
    optimizer, scaler = ours(parameters([9]), advance_on_skip=advance), scaled(kind)
    start = (optimizer.get_last_lr(), optimizer.get_last_momentum())
    scaled_step(optimizer, scaler)
    assert ((optimizer.get_last_lr(), optimizer.get_last_momentum()) == start) is not advance
    assert (optimizer.applied_steps, optimizer.skipped_steps) == (int(advance), 1)
    scaled_step(optimizer, scaler, 1.0)
    assert (optimizer.applied_steps, optimizer.skipped_steps) == (1 + int(advance), 1)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_torch_goes_on_without_an_update() -> None:
    (weight,) = parameters([9])
    optimizer = loop([weight])
    scheduler = CyclicLR(optimizer, 0.25, 0.5, step_size_up=3)
    before = bits(weight)
    scaled_step(optimizer, scaled())
    scheduler.step()
    assert bits(weight) == before
    if optimizer.param_groups[0]["lr"] == 0.25:
        mended("the schedule waits")
