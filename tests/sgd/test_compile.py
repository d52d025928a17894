"""torch.compile: one break of the graph at step(), no recompilation, the weights of a loop that is not compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clr_native import FusedCyclicSGD

pytestmark = [
    pytest.mark.slow,  # the compiler takes seconds to import
    pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning"),  # what it says of Python 3.13.0
]

STEPS = 24  # three cycles


def counters() -> Any:
    from torch._dynamo.utils import counters

    return counters


def made() -> tuple[torch.nn.Module, FusedCyclicSGD]:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    return model, FusedCyclicSGD(model.parameters(), 0.01, 0.1, step_size_up=4)


def iteration(model: torch.nn.Module, optimizer: FusedCyclicSGD, steps: bool) -> Callable[[], None]:
    inputs = torch.linspace(-1, 1, 8).reshape(2, 4)

    def run() -> None:
        for p in model.parameters():
            p.grad = None
        model(inputs).square().sum().backward()
        if steps:
            optimizer.step()

    return run


def run_compiled(function: Callable[[], Any]) -> tuple[int, int]:
    """Returns how many breaks and how many compiled frames the runs of a function gave."""
    torch._dynamo.reset()
    counters().clear()
    compiled = torch.compile(function, backend="eager")
    for _ in range(STEPS):
        compiled()
    return sum(counters()["graph_break"].values()), counters()["frames"]["ok"]


def test_the_step_by_itself_is_one_break() -> None:
    model, optimizer = made()
    iteration(model, optimizer, False)()
    breaks, frames = run_compiled(lambda: optimizer.step())
    assert (breaks, frames, optimizer.applied_steps) == (1, 1, STEPS)


def test_a_training_step_has_one_break_more_and_the_same_weights() -> None:
    without = run_compiled(iteration(*made(), False))
    model, optimizer = made()
    breaks, frames = run_compiled(iteration(model, optimizer, True))
    assert (breaks, frames) == (without[0] + 1, without[1] + 1)  # what follows the break is a frame of its own
    plain, other = made()
    run = iteration(plain, other, True)
    for _ in range(STEPS):
        run()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), plain.parameters(), strict=True))


def test_gradients_are_released_under_a_compiled_model() -> None:
    """The hooks run in the backward pass, behind what was compiled."""
    runs = []
    for compiles in (False, True):
        torch._dynamo.reset()
        model, optimizer = made()
        optimizer.release_gradients()
        forward: Callable[[torch.Tensor], torch.Tensor] = (
            torch.compile(model, backend="aot_eager") if compiles else model
        )
        for step in range(STEPS):
            torch.autograd.backward(forward(torch.linspace(-1, 1, 8).reshape(2, 4) * (step + 1) / STEPS).square().sum())
            assert all(p.grad is None for p in model.parameters())
            optimizer.step()
        runs.append(list(model.parameters()))
    assert all(torch.equal(p, q) for p, q in zip(*runs, strict=True))


def test_a_whole_graph_is_refused_with_our_reason() -> None:
    _, optimizer = made()
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"one native call, which torch\.compile cannot look into"):
        torch.compile(lambda: optimizer.step(), backend="eager", fullgraph=True)()


def test_the_marks_cost_nothing() -> None:
    """step() is the very function of the class, with no wrapper before it."""
    assert FusedCyclicSGD.step.__code__.co_name == "step"
    assert not hasattr(FusedCyclicSGD.step, "__wrapped__")
