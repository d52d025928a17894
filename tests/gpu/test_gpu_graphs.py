"""Steps that are captured in a graph: replays follow the schedule, and what cannot be captured is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clr_native import FusedCyclicSGD
from twins import Machine, Twins

pytestmark = pytest.mark.cuda


class Captured:
    """The device's step in a graph, after two ordinary ones; its replays beside steps on the CPU."""

    def __init__(self, machine: Machine, **settings: Any) -> None:
        self.machine, self.stream = machine, machine.new_stream()
        self.twins = Twins(machine, **settings)
        machine.use(self.stream)
        self.twins.step(2)
        self.before = [dict(group) for group in self.twins.there.param_groups]
        with machine.capture(self.stream) as self.graph:
            self.twins.there.step()

    def replay(self, count: int = 1) -> None:
        for _ in range(count):
            self.twins.give()
            with self.machine.cpu():
                self.twins.here.step()
            self.machine.replay(self.graph)


@pytest.mark.parametrize(
    "settings", [{}, {"ema_decay": 0.5, "nesterov": True}, {"max_grad_norm": 0.25}, {"lr_scale": 0.3}]
)
def test_replays_follow_the_cycle(machine: Machine, settings: dict[str, Any]) -> None:
    captured = Captured(machine, **settings)
    twins = captured.twins
    assert [dict(group) for group in twins.there.param_groups] == captured.before  # no update yet
    twins.assert_same()
    captured.replay(4)  # beyond a turn of the cycle
    twins.assert_same_tensors()
    assert twins.there.get_last_lr() == twins.here.get_last_lr()
    assert twins.there.get_last_momentum() == twins.here.get_last_momentum()
    assert (twins.there.last_lr, twins.there.last_momentum) == (twins.here.last_lr, twins.here.last_momentum)
    twins.assert_same()
    twins.step(2)  # eager ones go on from there
    twins.assert_same()
    captured.replay()
    twins.step()
    twins.assert_same_groups()  # the step saw that the device had done more than it was told
    captured.replay()
    twins.assert_same()


def test_replays_average_at_the_ends_of_cycles(machine: Machine) -> None:
    captured = Captured(machine, average="swa")
    twins = captured.twins
    assert (twins.there.applied_steps, twins.there.param_groups[0]["n_averaged"]) == (2, 0)
    captured.replay(4)
    machine.finish()
    twins.assert_same()
    captured.replay(5)
    twins.step()
    twins.assert_same()
    assert twins.here.param_groups[0]["n_averaged"] == 2


def test_a_graph_follows_seek(machine: Machine) -> None:
    captured = Captured(machine)
    captured.replay()
    captured.twins.both(lambda optimizer: optimizer.seek(4))
    captured.twins.step()
    captured.replay(2)
    captured.twins.assert_same()


@pytest.mark.parametrize("settings", [{}, {"max_grad_norm": 0.25}])
def test_a_graph_of_other_groups_changes_nothing(machine: Machine, settings: dict[str, Any]) -> None:
    """Its launches know groups by their numbers."""
    captured = Captured(machine, **settings)
    twins = captured.twins
    twins.both(lambda optimizer: optimizer.param_groups.reverse())
    twins.step()
    before = twins.there.applied_steps, twins.there.last_grad_norm
    for _ in range(2):
        machine.replay(captured.graph)
    with pytest.raises(RuntimeError, match=r"captured for other groups.*capture again"):
        _ = twins.there.applied_steps
    assert (twins.there.applied_steps, twins.there.last_grad_norm) == before
    twins.assert_same()
    machine.replay(captured.graph)
    machine.finish()
    with pytest.raises(RuntimeError, match="capture again"):
        twins.there.step()
    twins.step()
    twins.assert_same()


def test_a_graph_has_its_own_table(machine: Machine) -> None:
    """Gradients that lie elsewhere later are no business of the graph."""
    captured = Captured(machine)
    twins = captured.twins
    of_graph = [parameter.grad for parameter in twins.on_gpu]
    for parameter in twins.on_gpu:
        parameter.grad = None
    twins.step()
    for parameter, gradient in zip(twins.on_gpu, of_graph, strict=True):
        parameter.grad = gradient
    captured.replay()
    twins.step()
    twins.assert_same()


def test_state_set_by_hand_between_replays(machine: Machine) -> None:
    captured = Captured(machine)
    twins = captured.twins
    twins.both(lambda optimizer: optimizer.param_groups[1].update(lr=0.5))
    twins.step()  # an eager step carries it out
    captured.replay()
    twins.assert_same()
    twins.both(lambda optimizer: optimizer.param_groups[0].update(applied_steps=0))
    twins.step()
    captured.replay()
    twins.assert_same()


def test_state_that_only_a_graph_fills(machine: Machine) -> None:
    """The first step is skipped on the device. Who reads that must not free the buffers that the graph goes on with."""
    twins, stream = Twins(machine, ema_decay=0.5), machine.new_stream()
    machine.use(stream)
    twins.step(found_inf=1.0)
    with machine.capture(stream) as graph:
        twins.there.step()
    assert twins.there.skipped_steps == 1
    for _ in range(2):
        twins.give()
        with machine.cpu():
            twins.here.step()
        machine.replay(graph)
    machine.finish()
    twins.assert_same()
    twins.step()
    twins.assert_same()


def test_skipped_replays(machine: Machine) -> None:
    twins, stream = Twins(machine), machine.new_stream()
    machine.use(stream)
    twins.step(2)
    found_inf = machine.copy(torch.zeros(()))
    vars(twins.there)["found_inf"] = found_inf  # as a GradScaler does
    with machine.capture(stream) as graph:
        twins.there.step()
    del vars(twins.there)["found_inf"]
    for found in (0.0, 1.0, 0.0):
        found_inf.fill_(found)
        twins.give()
        vars(twins.here)["found_inf"] = found
        with machine.cpu():
            twins.here.step()
        machine.replay(graph)
    del vars(twins.here)["found_inf"]
    twins.assert_same()
    assert twins.there.skipped_steps == 1


def without_momentum(optimizer: FusedCyclicSGD) -> None:
    optimizer.state[optimizer.param_groups[0]["params"][0]].pop("momentum_buffer")


def with_an_error(optimizer: FusedCyclicSGD) -> None:
    optimizer.max_grad_norm, optimizer.error_if_nonfinite = 1.0, True


REFUSED: dict[str, Callable[[FusedCyclicSGD], object]] = {
    "a step that makes a buffer": without_momentum,
    "lr or momentum set by hand": lambda optimizer: optimizer.param_groups[0].update(lr=0.5),
    "changed settings": lambda optimizer: optimizer.param_groups[0].update(weight_decay=0.5),
    "a change of position": lambda optimizer: optimizer.param_groups[0].update(applied_steps=9),
    "error_if_nonfinite=True": with_an_error,
}


@pytest.mark.parametrize(("words", "change"), REFUSED.items(), ids=REFUSED)
def test_what_a_graph_cannot_hold(machine: Machine, words: str, change: Callable[[FusedCyclicSGD], object]) -> None:
    twins = Twins(machine)
    twins.step(2)
    change(twins.there)
    before = [dict(group) for group in twins.there.param_groups]
    stream = machine.new_stream()
    machine.use(stream)
    with machine.capture(stream), pytest.raises(RuntimeError, match=rf"{words}.*captured"):
        twins.there.step()
    assert [dict(group) for group in twins.there.param_groups] == before
    change(twins.here)
    machine.use(None)
    if "error" not in words:
        twins.step(2)
        twins.assert_same()


def test_a_first_step_cannot_be_captured(machine: Machine) -> None:
    twins = Twins(machine)
    twins.give()
    stream = machine.new_stream()
    machine.use(stream)
    with machine.capture(stream), pytest.raises(RuntimeError, match="the first step cannot be captured"):
        twins.there.step()
    assert not any(twins.there.state.values())


def test_nothing_is_read_during_a_capture(machine: Machine) -> None:
    twins, stream = Twins(machine), machine.new_stream()
    machine.use(stream)
    twins.step()
    with machine.capture(stream), pytest.raises(RuntimeError, match="cannot be read while"):
        twins.there.state_dict()
    twins.step()
    twins.assert_same()
