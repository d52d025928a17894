"""What a step allocates: momentum buffers at the first, nothing that grows with the number of tensors later."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from helpers import Shape, buffer_of, give, gradient_sets, parameters


def made(shapes: Sequence[Shape], groups: int = 1, **settings: Any) -> tuple[FusedCyclicSGD, list[Tensor]]:
    """With gradients."""
    over = parameters(shapes)
    split = [{"params": over[i::groups]} for i in range(groups)]
    give(over, gradient_sets(over, 1)[0])
    return FusedCyclicSGD(split, 0.1, 0.5, step_size_up=7, **settings), over


def running(tensors: int, groups: int = 1) -> tuple[FusedCyclicSGD, list[Tensor]]:
    """In its steady state."""
    optimizer, over = made([8] * tensors, groups, weight_decay=0.01)
    for _ in range(20):
        optimizer.step()
    return optimizer, over


def peak_of_a_step(optimizer: FusedCyclicSGD) -> int:
    """Bytes of Python objects alive at once, beyond those before the step."""
    gc.collect()
    tracemalloc.start()
    try:
        optimizer.step()  # what tracing itself sets up
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        optimizer.step()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_step_allocates_nothing_that_grows_with_the_number_of_tensors() -> None:
    few, many = (peak_of_a_step(running(tensors)[0]) for tensors in (10, 1000))
    assert many <= few + 256


@pytest.mark.slow
def test_a_step_with_many_groups_keeps_only_their_numbers() -> None:
    """lr, momentum and position of each group are new numbers: at most a few words each, twice while replaced."""
    few, many = (peak_of_a_step(running(200, groups)[0]) for groups in (1, 200))
    assert many - few <= 200 * 2 * 3 * 32


@pytest.mark.slow
@pytest.mark.parametrize("tensors", [10, 1000])
def test_steps_leave_no_blocks_behind(tensors: int) -> None:
    optimizer, _ = running(tensors)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(50):
        optimizer.step()
    assert sys.getallocatedblocks() - before < 10


def tensor_bytes_of_a_step(optimizer: FusedCyclicSGD) -> int:
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        optimizer.step()
    return sum(max(event.self_cpu_memory_usage, 0) for event in profile.function_events or [])


@pytest.mark.parametrize("tensors", [10, 1000])
def test_no_tensor_memory_beyond_the_momentum_buffers(tensors: int) -> None:
    optimizer, over = made([8] * tensors, weight_decay=0.01)
    rounded_up = 64 * tensors  # torch gives at least a cache line
    assert 32 * tensors <= tensor_bytes_of_a_step(optimizer) <= rounded_up
    assert tensor_bytes_of_a_step(optimizer) == 0
    assert sum(buffer.nbytes for p in over if (buffer := buffer_of(optimizer, p)) is not None) == 32 * tensors


@pytest.mark.parametrize(
    "settings", [{"cycle_momentum": False, "momentum": 0.0}, {"base_momentum": 0.0, "max_momentum": 0.0}], ids=str
)
def test_without_momentum_no_buffers(settings: dict[str, Any]) -> None:
    optimizer, over = made([8] * 10, **settings)
    assert tensor_bytes_of_a_step(optimizer) == 0
    assert all(buffer_of(optimizer, p) is None for p in over)


@pytest.mark.parametrize("layout", ["plain", "turned", "gapped"])
def test_gradients_are_not_kept_alive(layout: str) -> None:
    memory = torch.zeros(6, 8)
    (weight,) = [memory[:, :4].requires_grad_()] if layout == "gapped" else parameters([(6, 4)])
    optimizer = FusedCyclicSGD([weight], 0.1, 0.5)
    for _ in range(3):
        weight.grad = torch.ones(4, 6).t() if layout == "turned" else torch.ones(6, 4)
        gone = weakref.ref(weight.grad)
        optimizer.step()
        weight.grad = None
        assert gone() is None


def test_gradients_of_a_refused_step_are_not_kept_alive() -> None:
    optimizer, over = made([4, 4])
    over[1].grad = torch._neg_view(torch.ones(4))
    gone = weakref.ref(over[0].grad)
    with pytest.raises(TypeError):
        optimizer.step()
    give(over, [None, None])
    assert gone() is None


def test_a_forgotten_optimizer_lets_go_of_its_tensors() -> None:
    optimizer, over = running(3)
    gone = [weakref.ref(p) for p in over] + [weakref.ref(optimizer.state[p]["momentum_buffer"]) for p in over]
    over.clear()
    del optimizer
    gc.collect()
    assert [reference() for reference in gone] == [None] * 6


def test_replaced_parameters_and_buffers_are_let_go() -> None:
    optimizer, over = running(1)
    gone = [weakref.ref(over[0]), weakref.ref(optimizer.state[over[0]]["momentum_buffer"])]
    optimizer.param_groups[0]["params"][:] = parameters([5])
    optimizer.state.clear()
    give(optimizer.param_groups[0]["params"], [torch.ones(5)])
    over.clear()
    optimizer.step()
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
