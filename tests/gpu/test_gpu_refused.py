"""What cannot be done on a GPU is refused by name, and nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD, GradScaler
from hardware import Hardware
from helpers import every_parameter, gradient_of, parameters
from twins import Machine, step

pytestmark = pytest.mark.cuda


def on_gpu(machine: Machine, **settings: Any) -> FusedCyclicSGD:
    """Two parameters with gradients of ones."""
    over = [machine.copy(p.detach()).requires_grad_() for p in parameters([5, (3, 4)])]
    for parameter in over:
        parameter.grad = torch.ones_like(parameter)
    return FusedCyclicSGD(over, 0.01, 0.1, step_size_up=3, **settings)


def assert_refused(optimizer: FusedCyclicSGD, match: str, refused: Callable[[], object]) -> None:
    before = [parameter.detach().clone() for parameter in every_parameter(optimizer)]
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    with pytest.raises((RuntimeError, TypeError, ValueError), match=match):
        refused()
    assert all(map(torch.equal, before, every_parameter(optimizer)))
    assert [{name: group[name] for name in was} for was, group in zip(groups, optimizer.param_groups, strict=True)] == (
        groups
    )
    assert not any(optimizer.state.values())


@pytest.mark.parametrize("clips", [False, True])
def test_memory_that_is_shared_and_has_gaps(machine: Machine, clips: bool) -> None:
    whole = machine.copy(torch.zeros(8))
    over = [whole[::2].requires_grad_(), whole[3:].detach().requires_grad_()]
    for parameter in over:
        parameter.grad = torch.ones_like(parameter)
    optimizer = FusedCyclicSGD(over, 0.01, 0.1, max_grad_norm=1.0 if clips else None)
    assert_refused(optimizer, "parameters that share memory", optimizer.step)


@pytest.mark.parametrize("name", ["grad_scale", "found_inf"])
@pytest.mark.parametrize("value", [torch.ones(2), torch.ones((), dtype=torch.float64)], ids=["two", "float64"])
def test_what_a_scaler_cannot_give(machine: Machine, name: str, value: Tensor) -> None:
    optimizer = on_gpu(machine)
    given = machine.copy(value)
    assert_refused(
        optimizer, f"{name} of .* must be one torch.float32 number", lambda: step(optimizer, **{name: given})
    )
    delattr(optimizer, name)
    optimizer.step()
    assert optimizer.applied_steps == 1


def test_cpu_and_gpu_do_not_mix(hardware: Hardware) -> None:
    (mine,) = parameters([3])
    (other,) = parameters([4])
    over = [mine, hardware.copy(other.detach()).requires_grad_()]
    for parameter in over:
        parameter.grad = torch.ones_like(parameter)
    optimizer = FusedCyclicSGD(over, 0.01, 0.1)
    assert_refused(optimizer, "on cpu and on cuda", optimizer.step)


def test_a_buffer_on_the_other_device(hardware: Hardware) -> None:
    optimizer = on_gpu(hardware)
    weight = every_parameter(optimizer)[0]
    optimizer.state[weight]["momentum_buffer"] = torch.ones(5)
    with pytest.raises(TypeError, match="device=cpu must be the parameter's, device=cuda:0"):
        optimizer.step()
    assert optimizer.param_groups[0]["applied_steps"] == 0
    optimizer.state.clear()
    optimizer.step()
    assert optimizer.applied_steps == 1


@pytest.mark.parametrize("kind", ["tensor of the cpu", "number"])
def test_a_scale_from_the_cpu_is_read(hardware: Hardware, kind: str) -> None:
    """It is not refused: the host knows it already."""
    optimizer, beside = on_gpu(hardware), on_gpu(hardware)
    scale: Any = torch.tensor(4.0) if kind != "number" else 4.0
    step(optimizer, grad_scale=scale, found_inf=torch.zeros(()) if kind != "number" else 0.0)
    for parameter in every_parameter(beside):
        gradient_of(parameter).div_(4)
    beside.step()
    assert all(map(torch.equal, every_parameter(optimizer), every_parameter(beside)))


def test_a_closure_under_a_scaler(hardware: Hardware) -> None:
    optimizer = on_gpu(hardware)
    scaler = GradScaler(hardware.kind)
    scaler.scale(hardware.copy(torch.ones(())))
    assert_refused(optimizer, "[Cc]losure", lambda: scaler.step(optimizer, closure=lambda: 0.0))
