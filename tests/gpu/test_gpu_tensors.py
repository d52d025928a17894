"""Tensors of every dtype, way to keep 16 bits, size and layout, alone and in thousands."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from half_helpers import COMBINATIONS, WAYS, ids_of, name_of
from hardware import Hardware
from helpers import every_parameter, give, gradient_of, gradient_sets, parameters
from twins import Machine, Twins, assert_same_bits

pytestmark = pytest.mark.cuda

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Around what a thread takes at once (2 to 8 elements), what a block does (512 times that), and a chunk (16,384).
SMALL = [0, 1, 2, 7, 8, 9, 17]
LARGE = [511, 4097, 16_383, 16_384, 16_385, 3 * 16_384 + 5, 1_000_003]


@pytest.mark.parametrize(("dtype", "momentum_dtype", "way"), COMBINATIONS, ids=ids_of)
def test_dtypes_and_ways_to_keep_them(
    machine: Machine, dtype: torch.dtype, momentum_dtype: torch.dtype | None, way: str
) -> None:
    settings: dict[str, Any] = {"momentum_dtype": name_of(momentum_dtype), **WAYS[way]}
    twins = Twins(machine, dtype, over=parameters([65, (3, 5)], dtype), weight_decay=0.01, nesterov=True, **settings)
    twins.step(3)
    twins.assert_same()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_small_sizes(machine: Machine, dtype: torch.dtype) -> None:
    twins = Twins(machine, dtype, over=parameters(SMALL, dtype), max_grad_norm=0.5, ema_decay=0.5)
    twins.step(2)
    twins.assert_same()


@pytest.mark.parametrize(("dtype", "momentum_dtype", "way"), COMBINATIONS, ids=ids_of)
def test_large_sizes(hardware: Hardware, dtype: torch.dtype, momentum_dtype: torch.dtype | None, way: str) -> None:
    settings: dict[str, Any] = {"momentum_dtype": name_of(momentum_dtype), **WAYS[way]}
    twins = Twins(hardware, dtype, over=parameters(LARGE, dtype), max_grad_norm=1.0, ema_decay=0.9, **settings)
    twins.step(2, grad_scale=2.0, found_inf=0.0)
    assert twins.here.last_grad_norm == twins.there.last_grad_norm
    twins.assert_same()


Views = Callable[[Tensor], list[Tensor]]
OVER_ONE_MEMORY: dict[str, Views] = {
    "overlapping": lambda memory: [memory[:200], memory[100:]],
    "later first": lambda memory: [memory[100:], memory[:200]],
    "rows and all": lambda memory: [*memory.view(3, 100).unbind(), memory],
    "the same": lambda memory: [memory, memory.view(10, 30), memory[299:]],
}


@pytest.mark.parametrize("settings", [{}, {"max_grad_norm": 0.25, "ema_decay": 0.5}], ids=["plain", "clipped"])
@pytest.mark.parametrize("views", OVER_ONE_MEMORY.values(), ids=OVER_ONE_MEMORY)
def test_memory_that_is_shared(machine: Machine, views: Views, settings: dict[str, Any]) -> None:
    """Updates follow each other in the order of parameters; large tensors come no sooner than others."""
    (start,) = parameters([300])
    with machine.cpu():
        memory = start.detach().clone()
        over = [view.detach().requires_grad_() for view in views(memory)]
        here = FusedCyclicSGD(over, 0.01, 0.1, step_size_up=3, weight_decay=0.01, **settings)
    there = FusedCyclicSGD(
        [view.detach().requires_grad_() for view in views(machine.copy(start.detach()))],
        0.01,
        0.1,
        step_size_up=3,
        weight_decay=0.01,
        **settings,
    )
    for gradients in gradient_sets(over, 3):
        give(over, [gradient.clone() for gradient in gradients])
        give(every_parameter(there), [machine.copy(gradient) for gradient in gradients])
        with machine.cpu():
            here.step()
        there.step()
    assert there.applied_steps == 3
    for mine, other in zip(over, every_parameter(there), strict=True):
        assert_same_bits(mine, other, "weight")
        for name, tensor in here.state[mine].items():
            assert_same_bits(tensor, there.state[other][name], name)


# --- layouts ------------------------------------------------------------------------------------------------------


class Arranged:
    """A twins.Home where copies lie in memory as `arrange(copy, how many there were before)` puts them."""

    def __init__(self, machine: Machine, arrange: Callable[[Tensor, int], Tensor]) -> None:
        self.machine, self.arrange = machine, arrange
        self.kind = machine.kind
        self.copies = 0

    def copy(self, tensor: Tensor) -> Tensor:
        self.copies += 1
        return self.arrange(self.machine.copy(tensor), self.copies - 1)

    def cpu(self) -> AbstractContextManager[object]:
        return self.machine.cpu()


def misaligned(tensor: Tensor, before: int) -> Tensor:
    """Begins somewhere within 16 bytes."""
    flat = torch.cat([tensor.new_zeros(before % 8), tensor.reshape(-1)])
    return flat[before % 8 :].view(tensor.shape)


def gapped(tensor: Tensor, before: int) -> Tensor:
    wide = torch.stack([tensor, torch.full_like(tensor, 77.0)], dim=-1)
    return wide[..., 0]


def mirrored(tensor: Tensor, before: int) -> Tensor:
    """Dense, its axes in the other order: of every second tensor, so that parameter and gradient may differ."""
    if before % 2:
        return tensor
    axes = tuple(reversed(range(tensor.dim())))
    return tensor.permute(axes).contiguous().permute(axes)


ARRANGEMENTS = [misaligned, gapped, mirrored]


@pytest.mark.parametrize("arrange", ARRANGEMENTS, ids=lambda arrange: arrange.__name__)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_arrangements(machine: Machine, arrange: Callable[[Tensor, int], Tensor], dtype: torch.dtype) -> None:
    over = parameters([(5, 7), 66, (2, 3, 4), 130, (3, 4)], dtype)  # an odd number: see mirrored()
    twins = Twins(Arranged(machine, arrange), dtype, over=over, max_grad_norm=0.5, ema_decay=0.5)
    twins.step(3)
    twins.assert_same()
    if arrange is gapped:
        for parameter in twins.on_gpu:
            gaps = parameter.detach().as_strided((parameter.numel(),), (2,), 1)
            assert bool((gaps == 77.0).all())


def test_channels_last(machine: Machine) -> None:
    (values,) = parameters([(4, 3, 5, 5)])
    over = [values.detach().to(memory_format=torch.channels_last).requires_grad_()]
    twins = Twins(machine, over=over, weight_decay=0.01)
    twins.step()
    assert twins.on_gpu[0].stride() == over[0].stride() != values.stride()
    assert twins.there.state[twins.on_gpu[0]]["momentum_buffer"].stride() == over[0].stride()
    for other in twins.on_gpu:
        other.grad = gradient_of(other).contiguous()  # read in the parameter's order
    twins.both(FusedCyclicSGD.step)
    twins.assert_same()


# --- how many -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tensors", "groups"), [(1, 1), (2000, 1), (2000, 7), (1000, 1000)])
@pytest.mark.parametrize("clips", [False, True])
def test_many_tensors_and_groups(hardware: Hardware, tensors: int, groups: int, clips: bool) -> None:
    def grouped(over: list[Tensor], **settings: Any) -> FusedCyclicSGD:
        share = -(-tensors // groups)
        each = [{"params": over[i : i + share], "max_lr": 0.1 + i / tensors} for i in range(0, tensors, share)]
        return FusedCyclicSGD(each, 0.01, 0.1, step_size_up=3, **settings)

    shapes = [1 + i % 67 for i in range(tensors)]
    over = parameters(shapes)
    twins = Twins(hardware, over=over, made=grouped, max_grad_norm=1.0 if clips else None, weight_decay=1e-3)
    twins.step(5)
    twins.assert_same()


def test_more_than_two_to_the_31_elements(hardware: Hardware) -> None:
    """Each element is updated by itself: a few hundred at both ends and in the middle stand for all."""
    size = 2**31 + 100
    needed = 3 * 2 * size  # parameter, gradient and buffer of 16 bits
    free, _ = torch.cuda.mem_get_info()
    if free < needed + 2**30:
        pytest.skip(f"needs {(needed >> 30) + 1} GiB of free memory on the GPU, where {free >> 30} are")
    places = [slice(0, 300), slice(2**30, 2**30 + 300), slice(2**31 - 200, size)]
    large = torch.ones(size, dtype=torch.bfloat16, device="cuda").requires_grad_()
    large.grad = torch.full_like(large, 0.5)
    small = parameters([300, 300, 300], torch.bfloat16)
    for place, values in zip(places, small, strict=True):
        values.grad = torch.randn(300).to(torch.bfloat16)
        large.data[place] = values.detach().cuda()
        large.grad[place] = values.grad.cuda()
    there = FusedCyclicSGD([large], 0.01, 0.1, step_size_up=3)
    here = FusedCyclicSGD(small, 0.01, 0.1, step_size_up=3)
    for _ in range(2):
        there.step()
        here.step()
    rest = torch.ones(1, dtype=torch.bfloat16, requires_grad=True)
    rest.grad = torch.full_like(rest, 0.5)
    beside = FusedCyclicSGD([rest], 0.01, 0.1, step_size_up=3)
    beside.step()
    beside.step()
    for place, values in zip(places, small, strict=True):
        assert_same_bits(values, large[place], str(place))
    between = large.detach()[300 : 2**30]
    assert bool((between == rest.item()).all())
