"""Mixed precision with real models, losses and scalers. Real hardware only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clr_native
from clr_native import FusedCyclicSGD
from hardware import Hardware
from helpers import gradient_of
from twins import assert_same_bits

pytestmark = pytest.mark.cuda

SCALERS = [clr_native.GradScaler, torch.amp.GradScaler]
BATCHES = 12
OVERFLOWS = (0, 1, 7)


class TrainingLoop:
    """A model on the GPU under autocast, and on the CPU the same updates by the very gradients."""

    def __init__(self, hardware: Hardware, kind: type[torch.amp.GradScaler], **settings: Any) -> None:
        self.device = hardware.kind
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(30, 50), nn.ReLU(), nn.Linear(50, 3)).to(self.device)
        self.mirror = [p.detach().cpu().requires_grad_() for p in self.model.parameters()]
        settings["grad_scale_in_step"] = True  # torch's scaler waits for the device without it, as no graph can
        self.there = FusedCyclicSGD(self.model.parameters(), 0.01, 0.1, step_size_up=3, **settings)
        self.here = FusedCyclicSGD(self.mirror, 0.01, 0.1, step_size_up=3, **settings)
        self.scalers = [kind(device, init_scale=2.0**10, growth_interval=3) for device in (self.device, "cpu")]
        self.scalers[1].scale(torch.ones(()))

    def loss(self, batch: Tensor) -> Tensor:
        with torch.autocast(self.device, dtype=torch.float16):
            loss: Tensor = self.model(batch).float().square().mean()
        return loss

    def backward(self, batch: Tensor) -> None:
        self.there.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scalers[0].scale(self.loss(batch)))

    def mirror_gradients(self) -> None:
        for p, q in zip(self.model.parameters(), self.mirror, strict=True):
            q.grad = gradient_of(p).cpu()

    def step_mirror(self) -> None:
        self.scalers[1].step(self.here)
        self.scalers[1].update()

    def assert_same(self) -> None:
        assert self.there.applied_steps == self.here.applied_steps
        assert self.there.skipped_steps == self.here.skipped_steps
        assert self.there.get_last_lr() == self.here.get_last_lr()
        assert self.scalers[0].state_dict() == self.scalers[1].state_dict()
        for p, q in zip(self.model.parameters(), self.mirror, strict=True):
            assert_same_bits(q, p, "weight")
            for name, tensor in self.here.state[q].items():
                assert_same_bits(tensor, self.there.state[p][name], name)


def batches(hardware: Hardware) -> list[Tensor]:
    made = torch.randn(BATCHES, 16, 30, device=hardware.kind)
    for i in OVERFLOWS:
        made[i, 0, 0] = float("inf")
    return list(made)


@pytest.mark.parametrize("kind", SCALERS)
@pytest.mark.parametrize("settings", [{}, {"max_grad_norm": 0.1, "ema_decay": 0.9}], ids=["plain", "clipped"])
def test_training_with_overflows(
    hardware: Hardware, kind: type[torch.amp.GradScaler], settings: dict[str, Any]
) -> None:
    trained = TrainingLoop(hardware, kind, **settings)
    for batch in batches(hardware):
        trained.backward(batch)
        trained.mirror_gradients()
        trained.scalers[0].step(trained.there)
        trained.scalers[0].update()
        trained.step_mirror()
    trained.assert_same()
    assert trained.there.skipped_steps == len(OVERFLOWS)
    assert trained.there.applied_steps == BATCHES - len(OVERFLOWS)


@pytest.mark.parametrize("kind", SCALERS)
def test_unscaled_by_hand(hardware: Hardware, kind: type[torch.amp.GradScaler]) -> None:
    trained = TrainingLoop(hardware, kind)
    for batch in batches(hardware):
        trained.backward(batch)
        trained.mirror_gradients()
        for scaler, optimizer in zip(trained.scalers, (trained.there, trained.here), strict=True):
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
    trained.assert_same()
    assert trained.there.skipped_steps == len(OVERFLOWS)


@pytest.mark.parametrize("kind", SCALERS)
def test_a_whole_iteration_in_a_graph(hardware: Hardware, kind: type[torch.amp.GradScaler]) -> None:
    """Forward, backward, step and the scaler's update: replays skip overflows and follow the cycle."""
    trained = TrainingLoop(hardware, kind, max_grad_norm=0.1)
    stream = hardware.new_stream()
    hardware.use(stream)
    batch = torch.zeros(16, 30, device=hardware.kind)
    scaler, optimizer = trained.scalers[0], trained.there

    def iteration() -> None:
        for p in trained.model.parameters():
            p.grad = None  # backward() makes them anew, in the memory of the graph
        torch.autograd.backward(scaler.scale(trained.loss(batch)))
        scaler.step(optimizer)
        scaler.update()

    given = batches(hardware)
    for values in given[:3]:  # two overflows among them
        batch.copy_(values)
        iteration()
        trained.mirror_gradients()
        trained.step_mirror()
    with hardware.capture(stream) as graph:
        iteration()
    for values in given[3:]:
        batch.copy_(values)
        hardware.replay(graph)
        trained.mirror_gradients()
        trained.step_mirror()
    trained.assert_same()
    assert optimizer.skipped_steps == len(OVERFLOWS)
    assert optimizer.last_grad_norm == trained.here.last_grad_norm


@pytest.mark.parametrize("value", [1.0, float("inf")])
def test_weights_on_the_cpu_with_a_scale_on_the_gpu(hardware: Hardware, value: float) -> None:
    weight = torch.zeros(3, requires_grad=True)
    optimizer, scaler = FusedCyclicSGD([weight], 0.1, 0.5), clr_native.GradScaler(hardware.kind, init_scale=4.0)
    scaler.scale(torch.ones((), device=hardware.kind))
    weight.grad = torch.full((3,), value)
    scaler.step(optimizer)
    scaler.update()
    assert (optimizer.last_step_skipped, scaler.get_scale()) == ((False, 4.0) if value == 1.0 else (True, 2.0))
