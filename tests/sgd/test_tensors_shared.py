"""Shared memory: the same parameter twice, several parameters over one memory; the result is that of torch's loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from clr_native import FusedCyclicSGD
from helpers import LONG, assert_same_training, every_parameter, give, parameters

# Long enough for threads.
SIZE = 3 * LONG


def halves(memory: Tensor) -> list[Tensor]:
    return [memory[: 2 * LONG], memory[LONG:]]


Views = Callable[[Tensor], list[Tensor]]
VIEWS: dict[str, Views] = {
    "twice": lambda memory: [memory, memory.view(-1)],
    "overlapping": halves,
    "overlapping, later first": lambda memory: halves(memory)[::-1],
    "three": lambda memory: [*halves(memory), memory],
    "overlapping by one": lambda memory: [memory[: LONG + 1], memory[LONG:]],
    "apart": lambda memory: [memory[:LONG], memory[LONG:]],
    "other shapes": lambda memory: [memory.view(3, LONG), memory.view(LONG, 3), memory],
    "rows and all": lambda memory: [*memory.view(3, LONG).unbind(), memory.view(3, LONG)],
    "turned": lambda memory: [memory.view(3, LONG), memory.view(3, LONG).t()],
    "columns": lambda memory: [memory.view(LONG, 3)[:, :2], memory.view(LONG, 3)[:, 1:]],
    "columns and all": lambda memory: [memory.view(LONG, 3)[:, 1], memory],
    "columns apart": lambda memory: [memory.view(LONG, 3)[:, 0], memory.view(LONG, 3)[:, 2]],
}


Prepare = Callable[[Optimizer, int], None]


def live(make: Callable[[list[Tensor]], Optimizer], over: list[Tensor], prepare: Prepare, steps: int) -> Optimizer:
    """Steps with random gradients, each prepared by what is given the optimizer and the step's number."""
    optimizer = make(over)
    for step in range(steps):
        prepare(optimizer, step)
        generator = torch.Generator().manual_seed(step)
        unique = {id(p): torch.randn(p.shape, generator=generator) for p in over}
        give(over, [unique[id(p)] for p in over])
        optimizer.step()
    return optimizer


def nothing(optimizer: Optimizer, step: int) -> None: ...


def ours(over: list[Tensor]) -> Optimizer:
    return FusedCyclicSGD(over, 0.1, 0.1, cycle_momentum=False, momentum=0.9, weight_decay=0.1)


def theirs(over: list[Tensor]) -> Optimizer:
    return SGD(over, lr=0.1, momentum=0.9, weight_decay=0.1, foreach=False)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("views", VIEWS)
def test_parameters_over_one_memory(views: str, threads: int) -> None:
    torch.set_num_threads(threads)
    memories = [p.detach() for p in (*parameters([SIZE]), *parameters([SIZE]))]
    overs = [[view.detach().requires_grad_() for view in VIEWS[views](memory)] for memory in memories]
    optimizers = [live(make, over, nothing, 3) for make, over in zip((ours, theirs), overs, strict=True)]
    assert torch.equal(*memories)
    assert_same_training(*optimizers)


def move(optimizer: Optimizer, step: int) -> None:
    first, second = every_parameter(optimizer)
    if step == 2:
        second.data = first.detach()
    if step == 4:
        second.data = first.detach().clone()


def share_a_buffer(optimizer: Optimizer, step: int) -> None:
    if step == 0:
        buffer = torch.zeros(SIZE)
        for p in every_parameter(optimizer):
            optimizer.state[p]["momentum_buffer"] = buffer


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("prepare", [move, share_a_buffer])
def test_memory_that_becomes_shared_and_apart_again(prepare: Prepare, threads: int) -> None:
    torch.set_num_threads(threads)
    assert_same_training(*(live(make, parameters([SIZE, SIZE]), prepare, 6) for make in (ours, theirs)))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_parameter_twice_in_one_group(threads: int) -> None:
    """torch warns and updates it twice a step."""
    torch.set_num_threads(threads)
    optimizers = []
    for make in (ours, theirs):
        first, second = parameters([SIZE, 3])
        with pytest.warns(UserWarning, match="duplicate"):
            optimizers.append(live(make, [first, second, first], nothing, 4))
    assert_same_training(*optimizers)


def test_a_tied_weight_of_a_model_is_updated_once() -> None:
    torch.manual_seed(0)
    first, second = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
    second.weight = first.weight
    model = torch.nn.Sequential(first, second)
    optimizer = FusedCyclicSGD(model.parameters(), 0.1, 0.1, cycle_momentum=False, momentum=0.0)
    assert len(every_parameter(optimizer)) == 3
    before = first.weight.detach().clone()
    model(torch.ones(2, 6)).square().sum().backward()
    optimizer.step()
    assert first.weight.grad is not None
    assert torch.equal(second.weight, before.add(first.weight.grad, alpha=-0.1))
