"""The loop that every framework is held against: three epochs of twenty batches, cycles of fourteen updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clr_native import CyclicSchedule, FusedCyclicSGD

EPOCHS, BATCHES, SIZE = 3, 20, 4
STEPS = EPOCHS * BATCHES
SCHEDULE = CyclicSchedule(0.01, 0.1, step_size_up=7)  # an epoch ends in the middle of a cycle
RATES = [SCHEDULE(step).lr for step in range(STEPS + 1)]
MOMENTA = [SCHEDULE(step).momentum for step in range(STEPS + 1)]


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))


def data() -> tuple[Tensor, Tensor]:
    """Inputs [80, 8] and targets [80, 2], in order."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(BATCHES * SIZE, 8, generator=generator)
    return inputs, inputs[:, :2] + 0.1 * torch.randn(BATCHES * SIZE, 2, generator=generator)


def batches() -> list[tuple[Tensor, Tensor]]:
    inputs, targets = data()
    return list(zip(inputs.split(SIZE), targets.split(SIZE), strict=True))


def loader() -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=SIZE)


def loss_of(network: nn.Module, batch: Sequence[Tensor]) -> Tensor:
    return nn.functional.mse_loss(network(batch[0]), batch[1])


def optimizer_of(network: nn.Module, **settings: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(network.parameters(), schedule=SCHEDULE, weight_decay=1e-2, **settings)


def train(network: nn.Module, optimizer: Any, steps: range = range(STEPS), accumulate: int = 1) -> None:
    """Makes ``steps``, of which each takes ``accumulate`` batches."""
    each = batches()
    for step in steps:
        optimizer.zero_grad()
        for part in range(step * accumulate, (step + 1) * accumulate):
            (loss_of(network, each[part % BATCHES]) / accumulate).backward()
        optimizer.step()


def trained(steps: int = STEPS, **settings: Any) -> nn.Sequential:
    """The weights of the plain loop."""
    network = model()
    train(network, optimizer_of(network, **settings), range(steps))
    return network


def assert_same(network: nn.Module, other: nn.Module) -> None:
    for (name, p), q in zip(network.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name
