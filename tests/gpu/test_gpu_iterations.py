"""Whole iterations in graphs, with what torch has for that."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clr_native import CyclicSchedule, FusedCyclicSGD
from hardware import Hardware
from twins import Machine, Twins

# Returns a function of batches in the place of the model.
Prepare = Callable[[nn.Module, Tensor], Callable[..., Any]]
PAGE = Path(__file__).parents[2] / "docs" / "cuda.md"


def recipe() -> str:
    """The first block of docs/cuda.md."""
    return next(re.finditer(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))[1]


def test_the_recipe_is_short() -> None:
    lines = recipe().splitlines()
    begin = next(i for i, line in enumerate(lines) if "def iteration" in line)
    end = next(i for i, line in enumerate(lines) if "graph.replay()" in line)
    assert len([line for line in lines[begin : end + 1] if line.strip()]) <= 15


@pytest.mark.cuda
def test_the_recipe_trains(hardware: Hardware) -> None:
    names: dict[str, Any] = {}
    exec(recipe(), names)
    optimizer = names["opt"]
    assert optimizer.applied_steps + optimizer.skipped_steps == 1003
    assert optimizer.get_last_lr() == [CyclicSchedule(0.01, 0.1, step_size_up=500)(optimizer.applied_steps)[0]]
    assert optimizer.last_grad_norm > 0.0
    for weight in names["model"].parameters():
        assert weight.isfinite().all()
    assert names["loss_of_replay"] < names["first_loss"]


@pytest.mark.cuda
def test_several_optimizers_in_one_capture(machine: Machine) -> None:
    pairs, stream = [Twins(machine, max_grad_norm=limit) for limit in (None, 0.25)], machine.new_stream()
    machine.use(stream)
    for twins in pairs:
        twins.step(2)
    with machine.capture(stream) as graph:
        for twins in pairs:
            twins.there.step()
    for _ in range(3):
        for twins in pairs:
            twins.give()
            with machine.cpu():
                twins.here.step()
        machine.replay(graph)
    machine.finish()
    for twins in pairs:
        twins.assert_same()


def trained(hardware: Hardware, prepare: Prepare) -> list[Tensor]:
    """The weights after some iterations with ordinary steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 50), nn.ReLU(), nn.Linear(50, 3)).to(hardware.kind)
    batches = torch.randn(8, 16, 30, device=hardware.kind)
    optimizer = FusedCyclicSGD(model.parameters(), 0.01, 0.1, step_size_up=3, max_grad_norm=1.0)
    forward = prepare(model, batches[0])
    for batch in batches:
        optimizer.zero_grad()
        torch.autograd.backward(forward(batch).square().mean())
        optimizer.step()
    assert optimizer.applied_steps == len(batches)
    return [p.detach().clone() for p in model.parameters()]


PREPARED: dict[str, Prepare] = {
    "make_graphed_callables": lambda model, batch: torch.cuda.make_graphed_callables(model, (batch.clone(),)),
    "reduce-overhead": lambda model, _: torch.compile(model, mode="reduce-overhead"),
}


@pytest.mark.cuda
@pytest.mark.parametrize("prepare", PREPARED.values(), ids=PREPARED)
def test_forward_and_backward_in_graphs(hardware: Hardware, prepare: Prepare) -> None:
    """Gradients then lie where the graphs write them; steps between replays are ordinary ones."""
    plain = trained(hardware, lambda model, _: model)
    for mine, expected in zip(trained(hardware, prepare), plain, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)
