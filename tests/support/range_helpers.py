"""Helpers of the tests of the range test: a small model with everything that can be disturbed, and its batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from clr_native import RangeTestResult, lr_range_test

Batch = tuple[Tensor, Tensor]


def batches(count: int = 7, size: int = 8, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Batch]:
    """Returns inputs [size, 4] and targets [size, 2] of a linear rule with noise."""
    generator = torch.Generator().manual_seed(seed)
    rule = torch.tensor([[1.0, -2.0], [0.5, 0.3], [0.0, 1.0], [2.0, 0.1]], dtype=dtype)
    made = []
    for _ in range(count):
        inputs = torch.randn(size, 4, generator=generator, dtype=dtype)
        made.append((inputs, inputs @ rule + 0.1 * torch.randn(size, 2, generator=generator, dtype=dtype)))
    return made


def linear(dtype: torch.dtype = torch.float64) -> nn.Linear:
    """Returns the smallest model, always with the same weights."""
    torch.manual_seed(3)
    return nn.Linear(4, 2, dtype=dtype)


class Network(nn.Module):
    """A network with BatchNorm statistics, dropout, and a part that is frozen and in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.dropout = nn.Dropout(0.2)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.frozen_norm = nn.BatchNorm1d(6).eval()
        self.last = nn.Linear(6, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.dropout(self.norm(self.first(inputs)).tanh())
        outputs: Tensor = self.last(self.frozen_norm(self.frozen(hidden)))
        return outputs


def network() -> Network:
    """Returns a network, always with the same weights."""
    torch.manual_seed(0)
    return Network()


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.mse_loss(outputs, targets)


def quick(**settings: Any) -> dict[str, Any]:
    """Returns the settings of a short test."""
    return {"num_steps": 6, "start_lr": 1e-3, "end_lr": 1e-1, **settings}


def trial(
    model: nn.Module, loss_fn: Any = mse, loader: Any = None, *, optimizer: Optimizer | None = None, **settings: Any
) -> RangeTestResult:
    """Runs a short test of a model, under torch's SGD where no optimizer is given."""
    optimizer = optimizer or SGD(model.parameters(), lr=1.0)
    loader = batches(dtype=next(model.parameters()).dtype) if loader is None else loader
    return lr_range_test(model, optimizer, loss_fn, loader, **quick(**settings))
