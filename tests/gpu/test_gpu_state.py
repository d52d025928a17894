"""State that moves, steps that are interrupted, rates that others write: on a GPU or the stand-in, as on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from helpers import every_parameter, interrupted
from twins import Machine, Twins

pytestmark = pytest.mark.cuda

KINDS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "momentum": (torch.float32, {}),
    "average": (torch.float32, {"ema_decay": 0.5}),
    "kahan": (torch.bfloat16, {"kahan": True}),
    "master": (torch.float16, {"master_weights": True, "ema_decay": 0.5}),
}


@pytest.mark.parametrize(("dtype", "settings"), KINDS.values(), ids=KINDS)
def test_state_may_move(machine: Machine, dtype: torch.dtype, settings: dict[str, Any]) -> None:
    def move(optimizer: FusedCyclicSGD) -> None:
        for parameter in every_parameter(optimizer)[:2]:
            for tensor in optimizer.state[parameter].values():
                tensor.data = tensor.detach().clone()

    twins = Twins(machine, dtype, **settings)
    for _ in range(3):
        twins.step(2)
        twins.both(move)
    twins.step(2)
    twins.assert_same()


@pytest.mark.parametrize(
    ("kind", "steps", "events"),
    [
        *((kind, 2, range(10)) for kind in KINDS),
        ("average", 0, range(0, 1000, 13)),
    ],  # the stand-in's first step is long
)
def test_a_step_is_done_or_not_done(machine: Machine, kind: str, steps: int, events: range) -> None:
    dtype, settings = KINDS[kind]
    for event in events:
        twins = Twins(machine, dtype, **settings)
        twins.step(steps)
        twins.give()
        stopped = interrupted(twins.there.step, event)
        if twins.there.applied_steps == steps + 1:
            with machine.cpu():
                twins.here.step()
        twins.assert_same()
        twins.step()
        twins.assert_same()
        if not stopped:
            return
    raise AssertionError("the step was interrupted at every event")


def constant(over: list[torch.Tensor], **settings: Any) -> FusedCyclicSGD:
    groups: list[dict[str, Any]] = [{"params": over[:2]}, {"params": over[2:], "lr": 0.25}]
    return FusedCyclicSGD(groups, lr=0.5, **settings)


def test_a_rate_that_others_write(machine: Machine) -> None:
    """It holds until it is written again, and every update counts."""
    twins = Twins(machine, made=constant, ema_decay=0.5)
    for step in range(6):
        twins.step(1 + step % 2)
        twins.assert_same()
        for optimizer in (twins.here, twins.there):
            optimizer.param_groups[step % 2]["lr"] = 0.5 / (step + 2)
    twins.both(lambda optimizer: optimizer.load_state_dict(optimizer.state_dict()))
    twins.step(2)
    twins.assert_same()
    assert twins.there.applied_steps == 11


def test_a_step_that_asks_for_state(machine: Machine) -> None:
    """As torch.distributed does: it leaves zeros behind and counts for nothing."""

    def ask(optimizer: FusedCyclicSGD) -> None:
        lrs = [group["lr"] for group in optimizer.param_groups]
        for parameter in every_parameter(optimizer):
            parameter.grad = torch.zeros_like(parameter)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        optimizer.step()
        for group, lr in zip(optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr

    twins = Twins(machine, weight_decay=0.5, ema_decay=0.5)
    twins.both(ask)
    twins.assert_same()
    assert (twins.there.applied_steps, twins.there.param_groups[0]["n_averaged"]) == (0, 0)
    twins.step(3)
    twins.assert_same()


@pytest.mark.parametrize("name", ["applied_steps", "skipped_steps", "n_averaged"])
def test_a_count_that_somebody_sets_is_not_what_the_gpu_has_counted(machine: Machine, name: str) -> None:
    def put(optimizer: FusedCyclicSGD) -> None:
        optimizer.param_groups[0][name] = 7

    twins = Twins(machine, ema_decay=0.5)
    twins.step(2)
    twins.step(grad_scale=1.0, found_inf=1.0)
    twins.both(put)
    assert twins.there.param_groups[0][name] == 7
    assert twins.there.skipped_steps == twins.here.skipped_steps  # both ask the GPU
    assert twins.there.param_groups[0][name] == 7
    twins.step(2)
    twins.assert_same()


def short(over: list[Tensor], **settings: Any) -> FusedCyclicSGD:
    """A cycle is two steps of the first group. The second group has no average."""
    groups: list[dict[str, Any]] = [{"params": over[2:]}, {"params": over[:2], "average": None, "step_size_up": 3}]
    return FusedCyclicSGD(groups, 0.01, 0.1, step_size_up=1, average="swa", **settings)


def test_averages_at_the_ends_of_cycles(machine: Machine) -> None:
    twins = Twins(machine, made=short)

    def counted() -> tuple[int, int]:
        assert twins.there.applied_steps == twins.here.applied_steps  # now the groups have what the device has counted
        twins.assert_same_groups()
        here, there = (each.param_groups[0]["n_averaged"] for each in (twins.here, twins.there))
        return here, there

    twins.step()
    assert counted() == (0, 0)
    with pytest.raises(RuntimeError, match="no average yet"), twins.there.averaged_weights():
        pass
    twins.step()
    assert counted() == (1, 1)
    twins.step()
    twins.step(found_inf=1.0)  # the end is put off
    assert counted() == (1, 1)
    twins.step()
    twins.assert_same()
    twins.step()
    twins.both(lambda optimizer: optimizer.param_groups[0].update(lr=0.5))
    twins.step()  # an update by hand ends no cycle
    assert counted() == (2, 2)
    twins.step()
    assert counted() == (3, 3)
    twins.both(lambda optimizer: optimizer.param_groups[1].update(average="swa"))
    twins.step(3)
    twins.assert_same()
    twins.both(lambda optimizer: optimizer.param_groups.reverse())  # the cycles of the other group count now
    twins.step(5)
    twins.assert_same()


def test_a_cycle_does_not_end_in_a_skipped_step(machine: Machine) -> None:
    twins = Twins(machine)
    for _ in range(14):  # the first group's cycles have six steps
        twins.step()
        assert twins.there.at_cycle_end == twins.here.at_cycle_end
        twins.step(grad_scale=1.0, found_inf=1.0)
        assert twins.there.at_cycle_end == twins.here.at_cycle_end is False
