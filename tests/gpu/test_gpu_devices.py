"""One optimizer over several GPUs. Real hardware only, with two of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from hardware import Hardware
from helpers import every_parameter, gradient_sets, parameters
from twins import assert_same_bits

pytestmark = pytest.mark.cuda

SHAPES: list[int | tuple[int, ...]] = [(5, 7), 65, 3, 40_000]


@pytest.fixture
def devices(hardware: Hardware) -> list[torch.device]:
    count = torch.cuda.device_count()
    if count < 2:
        pytest.skip(f"needs two GPUs, and torch sees {count}")
    return [torch.device("cuda", i) for i in range(2)]


def over_both(devices: list[torch.device], **settings: Any) -> FusedCyclicSGD:
    """Parameters on the two in turn, with gradients of ones."""
    over = [p.detach().to(devices[i % 2]).requires_grad_() for i, p in enumerate(parameters(SHAPES))]
    for parameter in over:
        parameter.grad = torch.ones_like(parameter)
    return FusedCyclicSGD(over, 0.01, 0.1, step_size_up=3, **settings)


def train(optimizer: FusedCyclicSGD, sets: list[list[Tensor]]) -> None:
    for gradients in sets:
        for parameter, gradient in zip(every_parameter(optimizer), gradients, strict=True):
            parameter.grad = gradient.to(parameter.device)
        optimizer.step()


def assert_same(one: FusedCyclicSGD, other: FusedCyclicSGD) -> None:
    assert one.applied_steps == other.applied_steps
    assert one.get_last_lr() == other.get_last_lr()
    for p, q in zip(every_parameter(one), every_parameter(other), strict=True):
        assert_same_bits(p.detach().cpu(), q, "weight")
        assert one.state[p].keys() == other.state[q].keys()
        for name, tensor in one.state[p].items():
            assert_same_bits(tensor.cpu(), other.state[q][name], name)


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.5, "max_grad_value": 0.05}, {"trust_coefficient": 0.01}])
def test_two_have_the_bits_of_the_cpu(devices: list[torch.device], settings: dict[str, Any]) -> None:
    here = FusedCyclicSGD(parameters(SHAPES), 0.01, 0.1, step_size_up=3, **settings)
    there = over_both(devices, **settings)
    sets = gradient_sets(parameters(SHAPES), 5)
    for optimizer in (here, there):
        train(optimizer, sets)
    assert_same(here, there)
    for optimizer in (here, there):
        optimizer.seek(1)
        train(optimizer, sets[:2])
    assert_same(here, there)


def test_streams_of_both(hardware: Hardware, devices: list[torch.device]) -> None:
    here = FusedCyclicSGD(parameters(SHAPES), 0.01, 0.1, step_size_up=3)
    there = over_both(devices)
    torch.cuda.synchronize(devices[0])
    torch.cuda.synchronize(devices[1])
    sets = gradient_sets(parameters(SHAPES), 4)
    first, second = map(hardware.new_stream, devices)
    with torch.cuda.stream(first), torch.cuda.stream(second):
        train(there, sets)
        train(here, sets)
        assert_same(here, there)


def test_the_second_device_alone(devices: list[torch.device]) -> None:
    """Whichever device is current."""
    here = FusedCyclicSGD(parameters(SHAPES), 0.01, 0.1, step_size_up=3, max_grad_norm=0.5)
    over = [p.detach().to(devices[1]).requires_grad_() for p in parameters(SHAPES)]
    there = FusedCyclicSGD(over, 0.01, 0.1, step_size_up=3, max_grad_norm=0.5)
    sets = gradient_sets(parameters(SHAPES), 3)
    with torch.cuda.device(devices[0]):
        train(there, sets)
    train(here, sets)
    assert_same(here, there)
    assert torch.cuda.current_device() == 0


REFUSED: dict[str, dict[str, Any]] = {
    "max_grad_norm": {"max_grad_norm": 1.0},
    "skip_nonfinite": {"skip_nonfinite": True},
}


@pytest.mark.parametrize(("words", "settings"), REFUSED.items(), ids=REFUSED)
def test_what_needs_all_gradients_on_one(devices: list[torch.device], words: str, settings: dict[str, Any]) -> None:
    optimizer = over_both(devices, **settings)
    with pytest.raises(RuntimeError, match=f"^{words} needs all gradients on one device"):
        optimizer.step()
    assert not any(optimizer.state.values())


def test_a_step_over_both_cannot_be_captured(devices: list[torch.device]) -> None:
    optimizer = over_both(devices)
    optimizer.step()
    torch.cuda.synchronize(devices[0])
    torch.cuda.synchronize(devices[1])
    captured = torch.zeros((), device=devices[0])
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        captured.add_(1)  # torch warns of a graph without anything
        with pytest.raises(RuntimeError, match="a step over several devices cannot be captured"):
            optimizer.step()
    optimizer.step()
    assert optimizer.applied_steps == 2
