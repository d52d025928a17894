"""What a step costs the device and the host's time line: launches, copies, waits, new memory. Real hardware only."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import clr_native
from clr_native import FusedCyclicSGD
from hardware import Hardware
from helpers import gradient_of, parameters

pytestmark = pytest.mark.cuda

STEPS = 5
# On the device's time line all the same: what torch notes of every optimizer's step, and the profiler of itself.
NO_WORK = ("Optimizer.step", "Activity Buffer", "Context Sync", "Stream Sync", "Event Sync", "Stream Wait")
SETTINGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "plain": ({}, ["clr_step_float32"]),
    "averages": ({"ema_decay": 0.5, "weight_decay": 0.01}, ["clr_step"]),
    "clipped": ({"max_grad_norm": 1.0}, ["clr_norm", "clr_step"]),
    "layer-wise": ({"trust_coefficient": 0.01}, ["clr_norm", "clr_step"]),
    "searched": ({"skip_nonfinite": True}, ["clr_norm", "clr_step_float32"]),
}


def on_gpu(hardware: Hardware, **settings: Any) -> tuple[FusedCyclicSGD, list[Tensor]]:
    """After two steps, with gradients that stay."""
    over = [hardware.copy(p.detach()).requires_grad_() for p in parameters([(40, 30), 65, 7, 40_000])]
    for parameter in over:
        parameter.grad = torch.full_like(parameter, 0.01)
    optimizer = FusedCyclicSGD(over, 0.01, 0.1, step_size_up=3, **settings)
    optimizer.step()
    optimizer.step()
    torch.cuda.synchronize()
    return optimizer, over


def device_events(call: Callable[[], object]) -> list[str]:
    """Names of what the device did: kernels, copies, memory set."""
    # Without acc_events torch 2.10 and 2.11 warn at every start; later ones need not take it.
    accumulate: dict[str, Any] = (
        {"acc_events": True} if "acc_events" in inspect.signature(profile.__init__).parameters else {}
    )
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], **accumulate) as profiled:
        call()
        torch.cuda.synchronize()
    events = [event for event in profiled.events() if event.device_type.name == "CUDA"]
    return [event.name for event in events if not event.name.startswith(NO_WORK)]


@pytest.mark.parametrize(("settings", "kernels"), SETTINGS.values(), ids=SETTINGS)
def test_launches_and_no_copies(hardware: Hardware, settings: dict[str, Any], kernels: list[str]) -> None:
    optimizer, _ = on_gpu(hardware, **settings)
    device_events(optimizer.step)  # the profiler's own beginning

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.step()

    assert device_events(steps) == kernels * STEPS


def test_the_profiler_sees_copies(hardware: Hardware) -> None:
    """Or the test above would say nothing."""
    optimizer, over = on_gpu(hardware)
    kept = over[0].grad
    over[0].grad = torch.full_like(over[0], 0.01)
    events = device_events(optimizer.step)
    assert kept is not over[0].grad
    assert events[-1] == "clr_step_float32"
    assert any("Memcpy HtoD" in name for name in events)
    assert any("DtoH" in name for name in device_events(lambda: optimizer.applied_steps))


@contextmanager
def no_waits() -> Iterator[None]:
    """An error where torch would wait for the device. Waits of clr-native itself go past torch: for those there are the
    profiler, the stand-in, and test_a_step_returns_while_the_device_is_busy()."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", [None, clr_native.GradScaler, torch.amp.GradScaler])
def test_torch_does_not_wait(hardware: Hardware, kind: type[torch.amp.GradScaler] | None) -> None:
    """torch's own GradScaler asks for found_inf with .item() only for optimizers that do not take it."""
    optimizer, over = on_gpu(hardware, grad_scale_in_step=True)
    scaler = kind(hardware.kind, init_scale=8.0) if kind is not None else None
    if scaler is not None:
        scaler.scale(hardware.copy(torch.ones(())))
        scaler.step(optimizer)
        scaler.update()
    with no_waits():
        for _ in range(STEPS):
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
    assert optimizer.applied_steps == 2 + STEPS + (scaler is not None)
    assert all(torch.isfinite(p).all() for p in over)


def test_a_step_returns_while_the_device_is_busy(hardware: Hardware) -> None:
    """Were it to wait for the device, the event behind a long kernel would have come when step() returns."""
    optimizer, _ = on_gpu(hardware, max_grad_norm=1.0)
    optimizer.step()
    torch.cuda.synchronize()
    hardware.keep_busy(1.0)
    busy = hardware.event()
    optimizer.step()
    group = dict(optimizer.param_groups[0])
    assert not hardware.is_done(busy)
    assert group["applied_steps"] == 4  # the host's count
    assert optimizer.applied_steps == 4
    assert hardware.is_done(busy)


def test_no_memory_is_taken(hardware: Hardware) -> None:
    """Of torch's. That the driver is asked for none the stand-in shows; what it has free, others change too."""
    optimizer, _ = on_gpu(hardware, max_grad_norm=math.inf, ema_decay=0.5)
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    for _ in range(100):
        optimizer.step()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before


@pytest.mark.parametrize("clips", [False, True])
def test_fresh_gradients_at_each_step(hardware: Hardware, clips: bool) -> None:
    """As backward() makes them after zero_grad(): beside an optimizer on the CPU that gets the same."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(30, 50), torch.nn.ReLU(), torch.nn.Linear(50, 3)).to(hardware.kind)
    mirror = [p.detach().cpu().requires_grad_() for p in model.parameters()]
    settings: dict[str, Any] = {"step_size_up": 3, "max_grad_norm": 0.1 if clips else None, "weight_decay": 0.01}
    there = FusedCyclicSGD(model.parameters(), 0.01, 0.1, **settings)
    here = FusedCyclicSGD(mirror, 0.01, 0.1, **settings)
    for _ in range(20):
        there.zero_grad(set_to_none=True)
        model(torch.randn(16, 30, device=hardware.kind)).square().mean().backward()
        for p, q in zip(model.parameters(), mirror, strict=True):
            q.grad = gradient_of(p).cpu()
        there.step()
        here.step()
    for p, q in zip(model.parameters(), mirror, strict=True):
        assert torch.equal(p.cpu(), q)
        assert torch.equal(there.state[p]["momentum_buffer"].cpu(), here.state[q]["momentum_buffer"])
    assert there.last_grad_norm == here.last_grad_norm
