"""Whole training runs on a GPU, or on the stand-in, have the bits of the CPU."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch

import clr_native
from clr_native import FusedCyclicSGD
from hardware import Hardware
from helpers import COPIES, gradient_of, parameters
from twins import Machine, Twins, assert_same_bits

pytestmark = pytest.mark.cuda

KINDS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {"weight_decay": 1e-2, "nesterov": True, "lr_scale": 0.3}),
    "float32, averages": (torch.float32, {"ema_decay": 0.75, "ema_warmup": True, "momentum_dtype": "bfloat16"}),
    "float64": (torch.float64, {"dampening": 0.25, "maximize": True}),
    "bfloat16, stochastic": (torch.bfloat16, {"rounding": "stochastic", "seed": 5, "ema_decay": 0.5}),
    "bfloat16, kahan": (torch.bfloat16, {"kahan": True}),
    "float32, clipped": (torch.float32, {"max_grad_norm": 0.25, "ema_decay": 0.5}),
    "float64, limited": (torch.float64, {"max_grad_value": 0.05}),
    "float32, layer-wise": (torch.float32, {"trust_coefficient": 0.01, "trust_min_ndim": 1, "weight_decay": 0.01}),
    "bfloat16, all": (
        torch.bfloat16,
        {"trust_coefficient": 0.01, "max_grad_norm": 0.25, "master_weights": True, "skip_nonfinite": True},
    ),
    "float16, master": (torch.float16, {"master_weights": True, "ema_decay": 0.5}),
}


@pytest.mark.parametrize(("dtype", "settings"), KINDS.values(), ids=KINDS)
def test_training_has_the_bits_of_the_cpu(machine: Machine, dtype: torch.dtype, settings: dict[str, Any]) -> None:
    twins = Twins(machine, dtype, **settings)
    for _ in range(2):
        twins.step()
        twins.assert_same_groups()  # by the host's count alone
        twins.assert_same()
    twins.step(2)
    twins.assert_same()


@pytest.mark.parametrize(("dtype", "settings"), KINDS.values(), ids=KINDS)
def test_training_of_large_tensors(hardware: Hardware, dtype: torch.dtype, settings: dict[str, Any]) -> None:
    twins = Twins(hardware, dtype, over=parameters([(300, 700), 1_000_003, 16_385], dtype), **settings)
    twins.step(3, grad_scale=3.0, found_inf=0.0)
    twins.assert_same()


@pytest.mark.parametrize("advance", [False, True])
def test_skipped_updates(machine: Machine, advance: bool) -> None:
    twins = Twins(machine, advance_on_skip=advance, ema_decay=0.5)
    for found_inf in (1.0, 2.0, 0.0, math.nan, 0.0, 0.0):
        twins.step(grad_scale=3.0, found_inf=found_inf)
        assert twins.there.last_step_skipped == twins.here.last_step_skipped == (found_inf != 0.0)
        twins.assert_same()


@pytest.mark.parametrize("lr", [0.25, 0.0])
def test_by_hand(machine: Machine, lr: float) -> None:
    twins = Twins(machine, torch.bfloat16, rounding="stochastic", ema_decay=0.5)

    def by_hand(optimizer: FusedCyclicSGD) -> None:
        optimizer.param_groups[0].update(lr=lr, momentum=0.25)
        optimizer.param_groups[1]["weight_decay"] = 0.5

    twins.both(by_hand)
    twins.step()  # torch.distributed asks for state with a first lr of 0
    twins.step()
    twins.both(by_hand)
    twins.step(grad_scale=2.0, found_inf=1.0)  # it waits for the update that it was set for
    twins.assert_same()
    twins.step(2, grad_scale=2.0, found_inf=0.0)
    twins.assert_same()


def test_positions_set_by_hand(machine: Machine) -> None:
    twins = Twins(machine)
    twins.step(2)
    twins.both(lambda optimizer: optimizer.param_groups[0].update(applied_steps=7))
    twins.step()
    twins.assert_same()
    twins.step(grad_scale=1.0, found_inf=1.0)
    twins.both(lambda optimizer: optimizer.seek(3))
    twins.assert_same()
    twins.step(2)
    twins.assert_same()


def test_parameters_come_and_go(machine: Machine) -> None:
    twins = Twins(machine, ema_decay=0.5)
    twins.step(2)
    for over in (twins.on_cpu, twins.on_gpu):
        over[1].grad = None
    twins.both(FusedCyclicSGD.step)  # only an average moves there
    twins.assert_same()
    twins.both(lambda optimizer: optimizer.param_groups.reverse())
    twins.step()
    twins.both(lambda optimizer: optimizer.state[optimizer.param_groups[0]["params"][1]].pop("momentum_buffer"))
    twins.step()
    twins.assert_same()
    for over, optimizer in ((twins.on_cpu, twins.here), (twins.on_gpu, twins.there)):
        fresh = torch.full((3,), 0.5)
        over.append((fresh if over is twins.on_cpu else machine.copy(fresh)).requires_grad_())
        optimizer.add_param_group({"params": over[-1:], "max_lr": 0.7})
        over[-1].grad = torch.ones_like(over[-1])
    twins.both(FusedCyclicSGD.step)
    twins.assert_same()


def resumed(optimizer: FusedCyclicSGD) -> FusedCyclicSGD:
    fresh = copy.deepcopy(optimizer)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return fresh


@pytest.mark.parametrize("copied", [*COPIES.values(), resumed], ids=[*COPIES, "resumed"])
def test_copies_and_checkpoints(machine: Machine, copied: Any) -> None:
    twins = Twins(machine, ema_decay=0.5)
    twins.step(2)
    twins.step(grad_scale=1.0, found_inf=1.0)
    twins.there = copied(twins.there)
    twins.on_gpu = [p for group in twins.there.param_groups for p in group["params"]]
    twins.assert_same()
    twins.step(2)
    twins.assert_same()


def test_a_checkpoint_of_skipped_updates_holds_no_buffer(machine: Machine) -> None:
    twins = Twins(machine, dampening=0.25)
    twins.step(2, grad_scale=1.0, found_inf=1.0)
    assert not any(twins.there.state_dict()["state"].values())
    assert not any(twins.here.state_dict()["state"].values())
    twins.step()
    twins.assert_same()


def test_loading_into_an_optimizer_that_has_run(machine: Machine) -> None:
    twins = Twins(machine)
    twins.step(2)
    saved = copy.deepcopy(twins.there.state_dict()), copy.deepcopy(twins.here.state_dict())
    twins.step(2)
    twins.there.load_state_dict(saved[0])
    twins.here.load_state_dict(saved[1])
    twins.step()
    twins.assert_same()


def test_what_is_measured(machine: Machine) -> None:
    twins = Twins(machine, max_grad_norm=0.25, skip_nonfinite=True)
    assert twins.there.last_grad_norm is None
    for poison in (None, math.inf, None):
        twins.give()
        if poison is not None:
            for over in (twins.on_cpu, twins.on_gpu):
                gradient_of(over[3])[7] = poison
        twins.both(FusedCyclicSGD.step)
        assert twins.there.last_grad_norm == twins.here.last_grad_norm
        assert twins.there.last_step_skipped == twins.here.last_step_skipped == (poison is not None)
    twins.assert_same()


def test_an_error_where_the_norm_is_not_finite(machine: Machine) -> None:
    twins = Twins(machine, max_grad_norm=1.0, error_if_nonfinite=True)
    twins.step(2)
    twins.give()
    gradient = gradient_of(twins.on_gpu[0])
    before = [parameter.detach().clone() for parameter in twins.on_gpu]
    kept = gradient[0, 0].item()
    gradient[0, 0] = math.nan
    with pytest.raises(RuntimeError, match="the norm of all gradients is nan"):
        twins.there.step()
    assert all(map(torch.equal, before, twins.on_gpu))
    gradient[0, 0] = kept
    twins.both(FusedCyclicSGD.step)
    twins.assert_same()


def test_averaged_weights(machine: Machine) -> None:
    twins = Twins(machine, ema_decay=0.5)
    twins.step(grad_scale=1.0, found_inf=1.0)
    with pytest.raises(RuntimeError, match="no average yet"), twins.there.averaged_weights():
        pass
    twins.step(3)
    with machine.cpu(), twins.here.averaged_weights():
        inside = [parameter.detach().clone() for parameter in twins.on_cpu]
    with twins.there.averaged_weights():
        for mine, other in zip(inside, twins.on_gpu, strict=True):
            assert_same_bits(mine, other, "average")
    twins.step()
    twins.assert_same()


def test_unscaled_gradients_are_written(machine: Machine) -> None:
    twins = Twins(machine, write_unscaled_grad=True)
    twins.step(2, grad_scale=3.0, found_inf=0.0)
    for mine, other in zip(twins.on_cpu, twins.on_gpu, strict=True):
        assert_same_bits(gradient_of(mine), gradient_of(other), "gradient")
    twins.assert_same()


@pytest.mark.parametrize("kind", [torch.amp.GradScaler, clr_native.GradScaler])
def test_grad_scalers(machine: Machine, kind: type[torch.amp.GradScaler]) -> None:
    twins = Twins(machine)
    scalers = [kind(device, init_scale=8.0, growth_interval=2) for device in ("cpu", machine.kind)]
    for overflows in (True, False, False, True, False):
        twins.give()
        for scaler, over in zip(scalers, (twins.on_cpu, twins.on_gpu), strict=True):
            one = torch.ones(())
            scale = scaler.scale(one if over is twins.on_cpu else machine.copy(one))
            with torch.no_grad():
                for parameter in over:
                    gradient_of(parameter).mul_(scale)
                if overflows:
                    gradient_of(over[0])[0, 0] = math.inf
        for optimizer, scaler in zip((twins.here, twins.there), scalers, strict=True):
            with machine.cpu() if optimizer is twins.here else nullcontext():
                scaler.step(optimizer)
                scaler.update()
        assert (twins.here.last_lr, twins.here.last_momentum) == (twins.there.last_lr, twins.there.last_momentum)
        assert scalers[0].state_dict() == scalers[1].state_dict()
    twins.assert_same()
