"""Gradient release on a GPU: a launch a parameter while backward() runs, and the bits of ordinary steps on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from helpers import gradient_sets, parameters
from twins import SHAPES, Machine, Twins

pytestmark = pytest.mark.cuda


class Released(Twins):
    """The optimizer on the GPU releases gradients, that on the CPU gets them all at once."""

    def __init__(self, machine: Machine, dtype: torch.dtype = torch.float32, **settings: Any) -> None:
        super().__init__(machine, dtype, **settings)
        self.handle = self.there.release_gradients()

    def release(self, gradients: Sequence[Tensor | None], before: Callable[[int], None] = lambda i: None) -> None:
        for i, (mine, other, gradient) in enumerate(zip(self.on_cpu, self.on_gpu, gradients, strict=True)):
            mine.grad = None if gradient is None else gradient.clone()
            before(i)
            if gradient is not None:
                torch.autograd.backward(other, self.home.copy(gradient))
            assert other.grad is None

    def update(self, gradients: Sequence[Tensor | None]) -> None:
        self.release(gradients)
        self.both(FusedCyclicSGD.step)


SETTINGS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float64": {"dtype": torch.float64, "nesterov": True, "weight_decay": 0.01},
    "ema": {"ema_decay": 0.75, "ema_warmup": True},
    "swa": {"average": "swa"},
    "stochastic": {"dtype": torch.bfloat16, "rounding": "stochastic", "seed": 3},
    "kahan": {"dtype": torch.bfloat16, "kahan": True},
    "master weights": {"dtype": torch.float16, "master_weights": True, "ema_decay": 0.5},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_as_ordinary_steps_on_the_cpu(machine: Machine, settings: dict[str, Any]) -> None:
    twins = Released(machine, **settings)
    for number, gradients in enumerate(gradient_sets(twins.on_cpu, 8)):  # a cycle and a half
        if number == 3:
            twins.both(lambda optimizer: optimizer.param_groups[0].update(lr=0.5))
        left_out = number % 2 if number else None  # the first update gives all of them buffers
        twins.update([None if i == left_out else gradient for i, gradient in enumerate(gradients)])
    twins.assert_same()
    assert twins.there.applied_steps == 7


def test_a_buffer_that_a_later_update_makes(machine: Machine) -> None:
    twins = Released(machine)
    first, second, third = gradient_sets(twins.on_cpu, 3)
    twins.update([None, *first[1:]])
    twins.update(second)
    twins.update([*third[:2], None, None])
    twins.assert_same()


def test_beside_ordinary_steps_and_what_is_read_in_between(machine: Machine) -> None:
    twins = Released(machine, ema_decay=0.5)
    one, *more = gradient_sets(twins.on_cpu, 3)
    twins.release(one)
    assert twins.there.applied_steps == 0  # which waits, and leaves the new buffers where they are
    twins.both(FusedCyclicSGD.step)
    for gradients in more:
        twins.update(gradients)
    twins.handle.remove()
    twins.step(2)
    twins.assert_same()


def test_a_schedule_with_a_function(machine: Machine) -> None:
    def made(over: list[Tensor]) -> FusedCyclicSGD:
        return FusedCyclicSGD(over, 0.01, 0.1, step_size_up=1, scale_fn=lambda cycle: 1.0 / cycle)

    twins = Released(machine, over=parameters(SHAPES), made=made)
    for gradients in gradient_sets(twins.on_cpu, 5):
        twins.update(gradients)
    twins.assert_same()


def test_streams_that_take_turns(machine: Machine) -> None:
    twins, streams = Released(machine), [machine.new_stream(), machine.new_stream()]
    for gradients in gradient_sets(twins.on_cpu, 3):
        twins.release(gradients, lambda i: machine.use(streams[i % 2]))
        machine.use(None)
        twins.both(FusedCyclicSGD.step)
    twins.assert_same()


def test_replays(machine: Machine) -> None:
    twins, stream = Released(machine, ema_decay=0.5), machine.new_stream()
    one, two = gradient_sets(twins.on_cpu, 2)
    machine.use(stream)
    for gradients in (one, two):
        twins.update(gradients)
    kept = [machine.copy(gradient) for gradient in one]
    with machine.capture(stream) as graph:
        for parameter, gradient in zip(twins.on_gpu, kept, strict=True):
            torch.autograd.backward(parameter, gradient)
        twins.there.step()
    assert twins.there.applied_steps == 2
    for mine, gradient in zip(twins.on_cpu, one, strict=True):
        mine.grad = gradient.clone()
    for _ in range(5):
        with machine.cpu():
            twins.here.step()
        machine.replay(graph)
    twins.assert_same()
    twins.update(two)
    twins.assert_same()


def test_a_first_step_cannot_be_captured(machine: Machine) -> None:
    twins, stream = Released(machine), machine.new_stream()
    machine.use(stream)
    (gradients,) = gradient_sets(twins.on_cpu, 1)
    with machine.capture(stream), pytest.raises(RuntimeError, match="the first step cannot be captured"):
        twins.release(gradients)
    assert not any(twins.there.state.values())
