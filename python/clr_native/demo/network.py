"""The network: two convolutions and two linear layers."""

from __future__ import annotations

from torch import nn


def convolutional_network(side: int) -> nn.Sequential:
    """Makes a network that gives scores of the ten digits, [n, 10], for images [n, 1, side, side]."""
    return nn.Sequential(
        nn.Conv2d(1, 8, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (side // 4) ** 2, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
