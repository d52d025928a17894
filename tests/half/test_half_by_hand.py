"""Master and compensated weights start from the parameter as it stands, and a parameter changed by hand is obeyed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clr_native import FusedCyclicSGD
from half_helpers import HALVES, WAYS, half_ulp, ids_of, weight_of
from helpers import (
    Beside,
    assert_goes_on_alike,
    bits,
    clones,
    every_parameter,
    give,
    go_on,
    gradient_sets,
    parameters,
    take_weights,
    train,
)

DTYPES = pytest.mark.parametrize("dtype", HALVES, ids=ids_of)
KEPT = pytest.mark.parametrize("way", ["kahan", "master"])
SIZES = (1, 17, 64, 150)


def ours(over: Any, **options: Any) -> FusedCyclicSGD:
    """Without momentum: a step is p - lr * g, from what the weight is."""
    return FusedCyclicSGD(over, 0.1, 0.5, step_size_up=3, cycle_momentum=False, momentum=0.0, **options)


def stepped(over: list[Tensor], gradients: list[Tensor], lr: float) -> list[Tensor]:
    """One step of torch's SGD in float32 from the parameters as they stand."""
    wide = [p.detach().float().requires_grad_() for p in over]
    give(wide, [gradient.float() for gradient in gradients])
    torch.optim.SGD(wide, lr=lr, foreach=False).step()
    return [p.detach() for p in wide]


def step_beside(optimizer: FusedCyclicSGD, over: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    """Steps; gives what torch makes of the parameters as they stood."""
    give(over, gradients)
    expected = stepped(over, gradients, optimizer.get_last_lr()[0])
    optimizer.step()
    return expected


def assert_kept(optimizer: FusedCyclicSGD, over: list[Tensor], expected: list[Tensor], way: str) -> None:
    """Weights as they come from these float32 values, to the bit; the parameter is them rounded."""
    for p, x in zip(over, expected, strict=True):
        assert bits(p) == bits(x.to(p.dtype))
        state = optimizer.state[p]
        if way == "master":
            assert bits(state["master_weight"]) == bits(x)
        if way == "kahan":
            assert bits(state["compensation"]) == bits((x - p.detach().float()).to(p.dtype))


@DTYPES
@KEPT
def test_the_first_step_starts_from_the_parameter(dtype: torch.dtype, way: str) -> None:
    """As it stands at the step, not at construction."""
    over = parameters(SIZES, dtype)
    optimizer = ours(over, **WAYS[way])
    for p, new in zip(over, parameters(SIZES, dtype, seed=9), strict=True):
        p.data.copy_(new)
    assert_kept(optimizer, over, step_beside(optimizer, over, gradient_sets(over, 1)[0]), way)


@DTYPES
def test_masters_and_buffers_go_as_torch_in_float32(dtype: torch.dtype) -> None:
    """Twelve steps of torch's SGD on float32 weights, to the bit: the 16 bits never come back in."""
    over = parameters(SIZES, dtype)
    settings: dict[str, Any] = {"step_size_up": 3, "weight_decay": 0.01, "nesterov": True}
    optimizer = FusedCyclicSGD(over, 0.1, 0.5, master_weights=True, **settings)
    beside = Beside(FusedCyclicSGD([p.detach().float().requires_grad_() for p in over], 0.1, 0.5, **settings))
    for gradients in gradient_sets(over, 12):
        give(over, gradients)
        optimizer.step()
        beside.step([gradient.float() for gradient in gradients])
        assert optimizer.get_last_momentum() == beside.ours.get_last_momentum()
        for p, q in zip(over, beside.twins, strict=True):
            assert bits(optimizer.state[p]["master_weight"]) == bits(q)
            assert bits(optimizer.state[p]["momentum_buffer"]) == bits(beside.theirs.state[q]["momentum_buffer"])
            assert bits(p) == bits(q.to(dtype))


@DTYPES
@KEPT
@pytest.mark.parametrize("new", [0.0, 1e-3, -1.0, 2.0])
def test_a_weight_copied_in_is_obeyed(dtype: torch.dtype, way: str, new: float) -> None:
    """Every other element is overwritten, with a multiple of what stood there; the others go on as they were."""
    over = parameters(SIZES, dtype)
    twins = clones(over)
    optimizer, untouched = ours(over, **WAYS[way]), ours(twins, **WAYS[way])
    sets = gradient_sets(over, 6)
    for each in (optimizer, untouched):
        train(each, every_parameter(each), sets, 5)
    rests = [weight_of(optimizer, p) - p.detach().double() for p in over]
    for p in over:
        p.data[::2] *= new
    starts = [p.detach().double() for p in over]
    expected = step_beside(optimizer, over, sets[5])
    step_beside(untouched, twins, sets[5])
    for p, twin, x, start, rest in zip(over, twins, expected, starts, rests, strict=True):
        found, wanted = weight_of(optimizer, p)[::2], x.double()[::2]
        if way == "master":
            assert torch.equal(found, wanted)
        else:
            # A rest below half an ulp of the new weight cannot be told from one of its own. The new rest, below half an
            # ulp itself, is rounded once; three roundings of float32 are the sum, the update and torch's.
            largest = torch.maximum(wanted.abs(), start[::2].abs()) + rest.abs()[::2]
            slack = half_ulp(half_ulp(largest, dtype), dtype) + 3 * half_ulp(largest, torch.float32)
            assert torch.all((found - wanted).abs() <= rest.abs()[::2] + slack)
        assert torch.equal(weight_of(optimizer, p)[1::2], weight_of(untouched, twin)[1::2])


@DTYPES
@KEPT
def test_a_smaller_weight_copied_in_is_obeyed_to_the_bit(dtype: torch.dtype, way: str) -> None:
    """A rest of the old weight is above half an ulp of the new one, and is dropped."""
    over = [torch.full((150,), 1.5, dtype=dtype, requires_grad=True)]
    optimizer = ours(over, **WAYS[way])
    eps = torch.finfo(dtype).eps
    for _ in range(3):
        give(over, [torch.full_like(over[0], eps)])  # what is lost is a tenth to a half of an ulp of 1.5
        optimizer.step()
    assert torch.all(weight_of(optimizer, over[0]) != over[0].detach().double())
    over[0].data.fill_(2.0**-9)
    assert_kept(optimizer, over, step_beside(optimizer, over, [torch.full_like(over[0], 0.01)]), way)


@KEPT
def test_a_model_that_loads_other_weights_goes_on_from_these(way: str) -> None:
    model, other = nn.Linear(8, 4).bfloat16(), nn.Linear(8, 4).bfloat16()
    optimizer = ours(model.parameters(), **WAYS[way])
    over = every_parameter(optimizer)
    sets = gradient_sets(over, 4)
    train(optimizer, over, sets, 3)
    rests = [(weight_of(optimizer, p) - p.detach().double()).abs() for p in over]
    model.load_state_dict({name: 4 * value for name, value in other.state_dict().items()})
    expected = step_beside(optimizer, over, sets[3])
    if way == "master":
        assert_kept(optimizer, over, expected, way)
    for p, x, rest in zip(over, expected, rests, strict=True):
        assert torch.all((p.detach().double() - x.double()).abs() <= half_ulp(x.double(), p.dtype) + rest)


@KEPT
def test_a_model_that_loads_its_own_weights_goes_on_as_if_nothing_had_been(way: str) -> None:
    optimizers = [ours(parameters(SIZES, torch.bfloat16), **WAYS[way]) for _ in range(2)]
    for each in optimizers:
        go_on(each, 3)
    take_weights(optimizers[1], copy.deepcopy(optimizers[1]))
    assert_goes_on_alike(optimizers[0], optimizers[1], 3)


@DTYPES
@KEPT
def test_infinities_and_nan_copied_in_and_taken_out_again(dtype: torch.dtype, way: str) -> None:
    """They are the weight while they stand there, and leave nothing behind."""
    (p,) = over = parameters([40], dtype)
    optimizer = ours(over, **WAYS[way])
    sets = gradient_sets(over, 4)
    train(optimizer, over, sets, 2)
    p.data[:3] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    train(optimizer, over, sets, 1, start=2)
    assert torch.equal(p.detach()[:2], torch.tensor([torch.inf, -torch.inf], dtype=dtype))
    assert p.detach()[2].isnan()
    p.data.fill_(0.75)
    expected = step_beside(optimizer, over, sets[3])
    assert bits(p.detach()[:3]) == bits(expected[0][:3].to(dtype))
    assert torch.isfinite(weight_of(optimizer, p)).all()


@DTYPES
@pytest.mark.parametrize("way", WAYS)
def test_a_weight_copied_in_outlives_a_look_at_the_averages(dtype: torch.dtype, way: str) -> None:
    """As if the averages had never been swapped in: the same weights, and the same next steps."""
    optimizers = [ours(parameters(SIZES, dtype), ema_decay=0.5, **WAYS[way]) for _ in range(2)]
    for each in optimizers:
        go_on(each, 3)
        for p in every_parameter(each):
            p.data[::2] = 2.5
    with optimizers[1].averaged_weights():
        assert all(not torch.any(p == 2.5) for p in every_parameter(optimizers[1]))
    assert all(bits(p) == bits(q) for p, q in zip(*map(every_parameter, optimizers), strict=True))
    assert_goes_on_alike(optimizers[0], optimizers[1], 2)
