"""Steps go to torch's current stream, in its order. Real hardware only."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from hardware import Hardware
from helpers import every_parameter, gradient_of, gradient_sets, parameters
from twins import Twins, assert_same_bits

pytestmark = pytest.mark.cuda


def test_a_side_stream(hardware: Hardware) -> None:
    """What is launched there before the step, the step sees; what is launched after it sees the step."""
    twins = Twins(hardware, max_grad_norm=0.25)
    twins.step(2)
    hardware.use(hardware.new_stream())
    gradients = next(twins.sets)
    for mine, other, gradient in zip(twins.on_cpu, twins.on_gpu, gradients, strict=True):
        mine.grad = gradient
        late = hardware.copy(gradient)
        gradient_of(other).fill_(77.0)
        hardware.keep_busy(0.1)
        gradient_of(other).copy_(late)
    twins.both(FusedCyclicSGD.step)
    after = [parameter.detach().clone() for parameter in twins.on_gpu]
    for mine, other in zip(twins.on_cpu, after, strict=True):
        assert_same_bits(mine, other, "after the step, on its stream")
    twins.assert_same()


def test_one_stream_after_another(hardware: Hardware) -> None:
    twins = Twins(hardware, ema_decay=0.5)
    streams = [hardware.new_stream(), None, hardware.new_stream()]
    for round_ in range(6):
        hardware.use(streams[round_ % 3])  # waits for the one before
        hardware.keep_busy(0.02)
        twins.step()
    twins.assert_same()


def test_two_optimizers_on_two_streams(hardware: Hardware) -> None:
    """Neither waits for the other, and each trains as if it were alone."""
    slow, quick = Twins(hardware, max_grad_norm=0.25), Twins(hardware, torch.bfloat16, ema_decay=0.5)
    for twins in (slow, quick):
        twins.step(2)
        twins.give()
    torch.cuda.synchronize()
    of_slow, of_quick = hardware.new_stream(), hardware.new_stream()
    with torch.cuda.stream(of_slow):
        hardware.keep_busy(1.0)
        slow.there.step()
        behind = hardware.event()
    with torch.cuda.stream(of_quick):
        quick.there.step()
    of_quick.synchronize()
    assert not hardware.is_done(behind)
    for twins, stream in ((slow, of_slow), (quick, of_quick)):
        twins.here.step()
        hardware.use(stream)
        twins.assert_same()


def test_threads(hardware: Hardware) -> None:
    """Each thread with its own optimizer and stream."""
    made: list[tuple[FusedCyclicSGD, list[Tensor], list[list[Tensor]]]] = []
    for seed in range(4):
        over = [hardware.copy(p.detach()).requires_grad_() for p in parameters([(30, 50), 65], seed=seed)]
        sets = [[hardware.copy(g) for g in gradients] for gradients in gradient_sets(over, 3, seed=seed)]
        made.append((FusedCyclicSGD(over, 0.01, 0.1, step_size_up=3, max_grad_norm=0.5), over, sets))
    torch.cuda.synchronize()
    errors: list[BaseException] = []

    def train(optimizer: FusedCyclicSGD, over: list[Tensor], sets: list[list[Tensor]]) -> None:
        try:
            with torch.cuda.stream(hardware.new_stream()):
                for step in range(50):
                    for parameter, gradient in zip(over, sets[step % 3], strict=True):
                        parameter.grad = gradient
                    optimizer.step()
                assert optimizer.applied_steps == 50
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=train, args=each) for each in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for seed, (optimizer, _, sets) in enumerate(made):
        beside: Any = FusedCyclicSGD(
            parameters([(30, 50), 65], seed=seed), 0.01, 0.1, step_size_up=3, max_grad_norm=0.5
        )
        for step in range(50):
            for parameter, gradient in zip(every_parameter(beside), sets[step % 3], strict=True):
                parameter.grad = gradient.cpu()
            beside.step()
        for mine, other in zip(every_parameter(beside), every_parameter(optimizer), strict=True):
            assert_same_bits(mine, other, f"thread {seed}")
