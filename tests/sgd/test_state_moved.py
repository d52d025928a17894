"""The memory of a state tensor may move while the tensor stays in the state: the numbers that stand there are used."""

from __future__ import annotations

import copy
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from helpers import assert_same_state, every_parameter, go_on, gradient_sets, parameters, picture, raised, train

SHAPES: list[tuple[int, ...]] = [(70, 60), (5,), (3, 4, 5, 6), (), (1, 7)]
# Settings, dtype of the parameters, and the tensors that they keep.
KINDS: dict[str, tuple[dict[str, Any], torch.dtype, tuple[str, ...]]] = {
    "momentum": ({}, torch.float32, ("momentum_buffer",)),
    "average": ({"ema_decay": 0.75}, torch.float64, ("momentum_buffer", "average")),
    "kahan": ({"kahan": True, "ema_decay": 0.75}, torch.bfloat16, ("momentum_buffer", "compensation", "average")),
    "master": ({"master_weights": True, "ema_decay": 0.5}, torch.float16, ("momentum_buffer", "master_weight")),
    "other dtype": ({"momentum_dtype": "bfloat16"}, torch.float32, ("momentum_buffer",)),
}
litter: list[Tensor] = []  # takes the memory that was let go


def swap(one: Tensor, other: Tensor) -> None:
    torch.utils.swap_tensors(one, other)  # type: ignore[no-untyped-call]  # untyped in torch


def swapped(tensor: Tensor) -> None:
    """Both tensors live on, each with the numbers of the other."""
    other = tensor.clone()
    tensor.fill_(77.0)
    swap(tensor, other)
    litter.append(other)


def set_elsewhere(tensor: Tensor) -> None:
    tensor.set_(tensor.clone())  # type: ignore[call-overload]  # torch's stub has not this form


def data(tensor: Tensor) -> None:
    tensor.data = tensor.detach().clone()


def grown(tensor: Tensor) -> None:
    tensor.untyped_storage().resize_(tensor.untyped_storage().nbytes() + (1 << 20))


def offloaded(tensor: Tensor) -> None:
    """As offloading code does: away, the memory freed, and back."""
    kept, size = tensor.detach().clone(), tensor.untyped_storage().nbytes()
    tensor.untyped_storage().resize_(0)
    litter.append(torch.full((64, 64), 1e3))
    tensor.untyped_storage().resize_(size)
    tensor.copy_(kept)


def turned(tensor: Tensor) -> None:
    """The same object in another layout."""
    tensor.data = tensor.detach().t().contiguous().t() if tensor.dim() == 2 else tensor.detach().clone()


def inside_another(tensor: Tensor) -> None:
    flat = torch.zeros(tensor.numel() + 3, dtype=tensor.dtype)
    flat[3:] = tensor.detach().reshape(-1)
    tensor.data = flat[3:].view_as(tensor)


def queued(tensor: Tensor) -> None:
    """What a queue to another process does to a tensor."""
    ForkingPickler.dumps(tensor)


MOVES: list[Callable[[Tensor], object]] = [
    torch.Tensor.share_memory_,
    swapped,
    set_elsewhere,
    data,
    grown,
    offloaded,
    turned,
    inside_another,
    queued,
]


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_as_if_nothing_had_moved(kind: str, move: Callable[[Tensor], object]) -> None:
    settings, dtype, names = KINDS[kind]
    over = parameters(SHAPES, dtype)
    moving, still = (FusedCyclicSGD(each, 0.1, 0.5, step_size_up=3, **settings) for each in (over, copy.deepcopy(over)))
    sets = gradient_sets(over)
    for step in range(6):
        for optimizer in (moving, still):
            train(optimizer, every_parameter(optimizer), sets, 1, step)
        for name in names:
            for parameter in over if step % 2 else over[:2]:
                move(moving.state[parameter][name])
        litter.extend(torch.full((70, 60), 1e3) for _ in range(4))
    assert_same_state(moving, still)
    litter.clear()


def freed(tensor: Tensor) -> None:
    tensor.untyped_storage().resize_(0)


def shorter(tensor: Tensor) -> None:
    tensor.data = torch.zeros(3, dtype=tensor.dtype)


def wider(tensor: Tensor) -> None:
    tensor.data = tensor.detach().to(torch.float32 if tensor.dtype is torch.float64 else torch.float64)


def negative(tensor: Tensor) -> None:
    tensor.data = torch._neg_view(tensor.detach().clone())


def to_meta(tensor: Tensor) -> None:
    swap(tensor, tensor.to("meta"))


@pytest.mark.parametrize("spoil", [freed, shorter, wider, negative, to_meta], ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_used_is_named_and_nothing_has_changed(kind: str, spoil: Callable[[Tensor], None]) -> None:
    settings, dtype, names = KINDS[kind]
    over = parameters([(4, 3), (5,)], dtype)
    optimizer = FusedCyclicSGD(over, 0.1, 0.5, step_size_up=3, **settings)
    go_on(optimizer, 2)
    for name in names:
        kept = optimizer.state[over[1]][name]
        optimizer.state[over[1]][name] = spoilt = kept.clone()
        go_on(optimizer)
        spoil(spoilt)
        before = {key: value for key, value in picture(optimizer).items() if key != "state"}
        for _ in range(2):
            error = raised(optimizer.step)
            assert isinstance(error, (TypeError, ValueError)), name
            assert f"parameter 1 of group 0, {name}" in str(error)
        assert {key: value for key, value in picture(optimizer).items() if key != "state"} == before
        optimizer.state[over[1]][name] = kept
        go_on(optimizer)


@pytest.mark.parametrize("move", [swapped, data, set_elsewhere], ids=lambda move: move.__name__)
def test_averages_in_the_place_of_weights_are_those_that_stand_in_the_state(move: Callable[[Tensor], object]) -> None:
    over = parameters([(4, 3), (5,)])
    optimizer = FusedCyclicSGD(over, 0.1, 0.5, ema_decay=0.5)
    go_on(optimizer, 3)
    weights = [p.detach().clone() for p in over]
    averages = [optimizer.state[p]["average"].clone() for p in over]
    move(optimizer.state[over[0]]["average"])
    with optimizer.averaged_weights():
        assert all(map(torch.equal, over, averages))
        move(optimizer.state[over[1]]["average"])
    assert all(map(torch.equal, over, weights))


def test_nobody_is_kept_from_swapping_tensors() -> None:
    """torch.utils.swap_tensors refuses tensors that somebody holds weak references to."""
    over = parameters([(4, 3), (5,)])
    optimizer = FusedCyclicSGD(over, 0.1, 0.5, ema_decay=0.5)
    go_on(optimizer, 3)
    for parameter in over:
        entry = optimizer.state[parameter]
        for tensor in (parameter, parameter.grad, entry["momentum_buffer"], entry["average"]):
            assert tensor is not None
            other = tensor.detach().clone()
            swap(tensor, torch.nn.Parameter(other) if tensor is parameter else other)
    go_on(optimizer, 2, start=3)
    assert optimizer.applied_steps == 5
