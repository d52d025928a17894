"""An lr in a tensor on the device: every update uses its value, also in graphs, and nobody waits for it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from clr_native import FusedCyclicSGD
from helpers import parameters
from twins import Machine, Twins

pytestmark = pytest.mark.cuda


class Rated:
    """Twins. The second group's rate is a tensor on the device; on the CPU it is set before each step."""

    def __init__(self, machine: Machine, dtype: torch.dtype = torch.float32, **settings: Any) -> None:
        self.machine, self.twins = machine, Twins(machine, **settings)
        self.rate = machine.copy(torch.tensor(0.25, dtype=dtype))
        self.twins.there.param_groups[1]["lr"] = self.rate
        self.twins.here._binding.native.set_warns(False)  # the CPU's optimizer takes this for a driver

    def step_here(self, lr: float) -> None:
        self.rate.fill_(lr)
        self.twins.give()
        self.twins.here.param_groups[1]["lr"] = lr
        with self.machine.cpu():
            self.twins.here.step()

    def step(self, lr: float) -> None:
        self.step_here(lr)
        self.twins.there.step()

    def assert_same(self) -> None:
        twins = self.twins
        assert twins.here.applied_steps == twins.there.applied_steps
        assert [g["applied_steps"] for g in twins.here.param_groups] == [
            g["applied_steps"] for g in twins.there.param_groups
        ]
        twins.assert_same_tensors()


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"max_grad_norm": 0.5, "nesterov": True},
    "averaged": {"ema_decay": 0.5},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_update_uses_it(machine: Machine, dtype: torch.dtype, settings: dict[str, Any]) -> None:
    rated = Rated(machine, dtype, **settings)
    for lr in [0.25] * 3 + [0.5] * 10:  # no warning of a driver
        rated.step(lr)
    rated.assert_same()
    assert rated.twins.there.last_lr == rated.twins.here.last_lr
    assert rated.twins.there.param_groups[1]["lr"] is rated.rate
    assert rated.twins.there.param_groups[1]["applied_steps"] == 0  # its schedule stands


def test_replays_use_it(machine: Machine) -> None:
    rated, stream = Rated(machine), machine.new_stream()
    machine.use(stream)
    rated.step(0.25)
    with machine.capture(stream) as graph:
        rated.twins.there.step()
    for lr in (0.125, 0.5, 0.25):
        rated.step_here(lr)
        machine.replay(graph)
    rated.assert_same()
    assert rated.twins.there.get_last_lr() == [*rated.twins.here.get_last_lr()[:1], 0.25]


def test_the_schedule_goes_on_when_it_is_gone(machine: Machine) -> None:
    rated = Rated(machine)
    rated.step(0.25)
    rated.step(0.5)
    rated.twins.both(lambda optimizer: optimizer.param_groups[1].update(lr=0.125))
    rated.twins.step(4)
    rated.twins.assert_same()


def test_it_is_saved_as_a_number(machine: Machine) -> None:
    rated = Rated(machine)
    rated.step(0.25)
    saved = rated.twins.there.state_dict()
    assert [type(group["lr"]) for group in saved["param_groups"]] == [float, float]
    assert (saved["param_groups"][1]["lr"], saved["param_groups"][1]["overridden"]) == (0.25, True)
    rated.twins.both(lambda optimizer: optimizer.load_state_dict(saved))
    rated.twins.step(3)
    rated.twins.assert_same()


def test_a_copy_goes_on_with_a_tensor_of_its_own(machine: Machine) -> None:
    rated = Rated(machine)
    rated.step(0.25)
    copied = copy.deepcopy(rated.twins.there)
    rate = copied.param_groups[1]["lr"]
    assert isinstance(rate, Tensor)
    assert rate is not rated.rate
    copied.step()
    assert copied.last_lr[1] == 0.25


def test_without_a_schedule_every_update_counts(machine: Machine) -> None:
    twins = Twins(machine, over=parameters([5, 3]), made=lambda over: FusedCyclicSGD(over, lr=0.1, momentum=0.9))
    rate = machine.copy(torch.tensor(0.25, dtype=torch.float64))
    twins.there.param_groups[0]["lr"] = rate
    for lr in (0.25, 0.5):
        rate.fill_(lr)
        twins.here.param_groups[0]["lr"] = lr
        twins.step()
    twins.assert_same_tensors()
    assert twins.there.applied_steps == 2
    assert twins.there.param_groups[0]["lr"] is rate


def test_another_tensor_is_read_as_a_number(machine: Machine) -> None:
    rated = Rated(machine)
    others: list[Tensor] = [torch.tensor(0.5, dtype=torch.bfloat16), torch.tensor(1)]
    for other in others:
        rated.twins.there.param_groups[1]["lr"] = machine.copy(other)
        rated.step(float(other))
    rated.assert_same()
