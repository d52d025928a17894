"""Shapes and layouts: empty and 0-dim tensors, channels_last, views with gaps, moved memory, mixed types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from helpers import (
    LAYOUTS,
    assert_refused,
    assert_same_training,
    bits,
    clones,
    every_parameter,
    follow,
    give,
    go_on,
    gradient_sets,
    parameters,
)

DTYPES = [torch.float32, torch.float64]


def ours(over: Sequence[Tensor], **settings: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(over, 0.05, 0.4, step_size_up=3, **{"weight_decay": 0.01} | settings)


@pytest.mark.parametrize(
    "shape", [(), (1,), (0,), (3, 0, 2), (1, 1, 1), (1, 5, 1), (2, 3, 4, 5, 6), (1,) * 20], ids=str
)
def test_shapes(shape: tuple[int, ...]) -> None:
    over = [*parameters([3]), *parameters([shape]), *parameters([4])]
    follow(ours(over), 3)


def test_only_empty_tensors() -> None:
    over = parameters([(0,), (2, 0)])
    optimizer = ours(over)
    go_on(optimizer, 3)
    assert optimizer.applied_steps == 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("of_gradient", LAYOUTS)
@pytest.mark.parametrize("of_parameter", [layout for layout in LAYOUTS if layout != "expanded"])
def test_gradients_in_any_layout(of_parameter: str, of_gradient: str, dtype: torch.dtype) -> None:
    start = parameters([(4, 3, 2, 5)], dtype)
    over = [LAYOUTS[of_parameter](start[0].detach()).requires_grad_()]
    sets = [[LAYOUTS[of_gradient](gradient) for gradient in s] for s in gradient_sets(start, 4)]
    before = [bits(gradient) for (gradient,) in sets]
    stride = over[0].stride()
    follow(ours(over), sets)
    assert over[0].stride() == stride
    assert [bits(gradient) for (gradient,) in sets] == before


def test_layouts_of_gradients_may_change_from_step_to_step() -> None:
    start = parameters([(4, 3, 2, 5), (2, 2, 3, 3)])
    sets = gradient_sets(start, 12)
    turned = [
        [list(LAYOUTS.values())[(step + i) % 4](g) for i, g in enumerate(gradients)]
        for step, gradients in enumerate(sets)
    ]
    follow(ours(start), turned)


@pytest.mark.parametrize("layout", ["channels_last", "transposed"])
def test_the_buffer_has_the_parameters_layout(layout: str) -> None:
    weight = LAYOUTS[layout](parameters([(4, 3, 2, 5)])[0].detach()).requires_grad_()
    optimizer = ours([weight])
    go_on(optimizer)
    assert optimizer.state[weight]["momentum_buffer"].stride() == weight.stride()


def test_a_buffer_in_another_layout_is_taken_over() -> None:
    for layout in LAYOUTS.values():
        (weight,) = parameters([(4, 3, 2, 5)])
        optimizer = ours([weight])
        go_on(optimizer)
        optimizer.state[weight]["momentum_buffer"] = layout(optimizer.state[weight]["momentum_buffer"])
        follow(optimizer, 3)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16, torch.float16])
def test_gaps_of_strided_views_are_left_alone(dtype: torch.dtype) -> None:
    memory = torch.full((6, 10), 7.0, dtype=dtype)
    views = [memory[:2, 2:7], memory[2:4, ::2], memory[4:, 1]]
    over = [view.detach().requires_grad_() for view in views]
    dense = [view.detach().clone().requires_grad_() for view in views]
    gaps = torch.ones(6, 10, dtype=torch.bool)
    gaps[:2, 2:7] = gaps[2:4, ::2] = gaps[4:, 1] = False
    strided, plain = ours(over), ours(dense)
    for gradients in gradient_sets(dense, 4):
        for optimizer in (strided, plain):
            give(every_parameter(optimizer), gradients)
            optimizer.step()
    assert_same_training(strided, plain)
    assert torch.all(memory[gaps] == 7.0)
    assert torch.equal(memory[:2, 2:7], dense[0])


@pytest.mark.parametrize("fresh", [True, False])
def test_an_expanded_parameter_is_refused(fresh: bool) -> None:
    """Several elements in one place: torch refuses its update too."""
    memory = torch.ones(3, 1)
    over = [*parameters([3]), memory.expand(3, 4).detach().requires_grad_()]
    optimizer = ours(over)
    if not fresh:
        give(over, [torch.ones(3), None])
        optimizer.step()
    give(over, [torch.ones(3), torch.ones(3, 4)])
    assert_refused(optimizer.step, ValueError, r"stride=\(1, 0\)", optimizer)
    assert torch.equal(memory, torch.ones(3, 1))
    assert optimizer.applied_steps == 1 - fresh


def test_mixed_types_in_one_group() -> None:
    """Each gives the bits that it gives alone."""
    dtypes = [torch.float16, torch.float32, torch.bfloat16, torch.float64, torch.float32, torch.float16]
    together = [p for dtype in dtypes for p in parameters([37, 5], dtype)]
    alone = [ours(clones([p])) for p in together]
    mixed = ours(together)
    for gradients in gradient_sets(together, 4):
        give(together, gradients)
        mixed.step()
        for optimizer, gradient in zip(alone, gradients, strict=True):
            give(every_parameter(optimizer), [gradient])
            optimizer.step()
    for parameter, optimizer in zip(together, alone, strict=True):
        (single,) = every_parameter(optimizer)
        buffers = [mixed.state[parameter]["momentum_buffer"], optimizer.state[single]["momentum_buffer"]]
        assert bits(parameter) == bits(single)
        assert buffers[0].dtype is parameter.dtype
        assert bits(buffers[0]) == bits(buffers[1])


def test_moved_memory_is_followed() -> None:
    """`p.data = ...` with the same shape, another layout, and another shape with fresh state."""
    over = parameters([(4, 3, 2, 5), 6])
    optimizer = ours(over)
    follow(optimizer, 2)
    old = over[0].detach()
    over[0].data = old.clone()
    kept = old.clone()
    follow(optimizer, 2)
    assert torch.equal(old, kept)
    over[0].data = over[0].detach().contiguous(memory_format=torch.channels_last)
    follow(optimizer, 2)
    over[0].data = torch.ones(7, 2)
    optimizer.state.pop(over[0])
    follow(optimizer, 2)
    over[0].data = torch.ones(3, dtype=torch.float64)
    over[0].grad = None
    optimizer.state.pop(over[0])
    follow(optimizer, 2)


def test_a_storage_that_moved_is_followed() -> None:
    (weight,) = parameters([8])
    optimizer = ours([weight])
    follow(optimizer, 2)
    before = weight.data_ptr()
    weight.untyped_storage().resize_(1_000_000)  # keeps its values, elsewhere
    assert weight.data_ptr() != before
    follow(optimizer, 2)


def test_module_to_another_type_and_back() -> None:
    model = torch.nn.Linear(5, 3)
    optimizer = ours(list(model.parameters()))
    follow(optimizer, 2)
    model.double()
    optimizer.zero_grad()
    optimizer.state.clear()
    follow(optimizer, 2)


def test_subclasses_of_tensor() -> None:
    class Named(torch.nn.Parameter):
        pass

    weight = Named(torch.ones(5))
    assert type(weight) is Named
    follow(ours([weight]), 3)
