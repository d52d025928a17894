"""State dicts, copies and pickles of a training on a GPU, and its way to the CPU and back."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch

from clr_native import FusedCyclicSGD
from hardware import Hardware
from helpers import COPIES, every_parameter
from twins import Machine, Twins, make

pytestmark = pytest.mark.cuda

SETTINGS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {"ema_decay": 0.5, "weight_decay": 0.01, "lr_scale": 0.3}),
    "bfloat16, master": (torch.bfloat16, {"master_weights": True}),
    "bfloat16, stochastic": (torch.bfloat16, {"rounding": "stochastic", "momentum_dtype": "float32"}),
}


def saved(optimizer: FusedCyclicSGD) -> dict[str, Any]:
    """As torch.save() writes it and a safe torch.load() gives it back, on the CPU."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
    return loaded


@pytest.mark.parametrize(("dtype", "settings"), SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("way", ["to the CPU", "to the GPU", "from the GPU to a GPU"])
def test_a_checkpoint_goes_on_anywhere(
    machine: Machine, dtype: torch.dtype, settings: dict[str, Any], way: str
) -> None:
    twins = Twins(machine, dtype, **settings)
    twins.step(2)
    twins.step(grad_scale=2.0, found_inf=1.0)
    twins.step()
    if way == "to the CPU":
        checkpoint = saved(twins.there)
        with machine.cpu():
            twins.here = make(twins.on_cpu, **settings)
            twins.here.load_state_dict(checkpoint)
    else:
        checkpoint = saved(twins.here if way == "to the GPU" else twins.there)
        twins.there = make(twins.on_gpu, **settings)
        twins.there.load_state_dict(checkpoint)
    twins.assert_same()
    for optimizer, kind in ((twins.here, "cpu"), (twins.there, machine.kind)):
        tensors = [tensor for entry in optimizer.state.values() for tensor in entry.values()]
        assert {tensor.device.type for tensor in tensors} == {kind}
    twins.step(3)
    twins.assert_same()


def test_asking_changes_nothing(machine: Machine) -> None:
    twins = Twins(machine, ema_decay=0.5)
    twins.step(2)
    before = [parameter.detach().clone() for parameter in twins.on_gpu]
    first, second = twins.there.state_dict(), copy.deepcopy(twins.there.state_dict())
    assert all(map(torch.equal, before, twins.on_gpu))
    assert first["param_groups"] == second["param_groups"]
    twins.step()
    twins.assert_same()


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_two_go_on_from_one(machine: Machine, copied: Callable[[FusedCyclicSGD], FusedCyclicSGD]) -> None:
    """A copy shares nothing with its origin, on the device either."""
    twins = Twins(machine, ema_decay=0.5)
    twins.step(2)
    other = copied(twins.there)
    before = [parameter.detach().clone() for parameter in every_parameter(other)]
    twins.step(2)
    twins.assert_same()
    assert all(map(torch.equal, before, every_parameter(other)))
    assert other.applied_steps == 2
    for parameter in every_parameter(other):
        parameter.grad = torch.ones_like(parameter)
    other.step()
    assert (other.applied_steps, twins.there.applied_steps) == (3, 4)


def test_torch_distributed_asks_for_state(hardware: Hardware) -> None:
    """It sets lr to 0, makes gradients of zeros and steps: no weight and no count may move."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3).to(hardware.kind)
    optimizer = FusedCyclicSGD(model.parameters(), 0.01, 0.1, step_size_up=3)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    state = get_optimizer_state_dict(model, optimizer)
    assert all(map(torch.equal, before, model.parameters()))
    assert optimizer.applied_steps == 0
    set_optimizer_state_dict(model, optimizer, state)
    model(torch.ones(2, 5, device=hardware.kind)).sum().backward()
    optimizer.step()
    assert optimizer.applied_steps == 1


def test_a_pair_of_torch_is_taken_over_and_given_back(machine: Machine) -> None:
    twins = Twins(machine, weight_decay=0.01)
    sgd = torch.optim.SGD(twins.on_gpu, lr=0.01, momentum=0.9, foreach=False)
    schedule = torch.optim.lr_scheduler.CyclicLR(sgd, 0.01, 0.1, step_size_up=3)
    for _ in range(2):
        twins.give()
        sgd.step()
        schedule.step()
    ours = FusedCyclicSGD.from_torch(sgd, schedule)
    twins.give()
    ours.step()
    assert ours.applied_steps == 3
    back, again = ours.to_torch()
    assert again.last_epoch == 3
    buffers = [entry["momentum_buffer"] for entry in back.state.values()]
    assert {buffer.device.type for buffer in buffers} == {machine.kind}
    twins.give()
    back.step()
    assert all(bool(torch.isfinite(parameter).all()) for parameter in twins.on_gpu)
