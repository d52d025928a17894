"""The training loop, one for both contenders."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean
from time import perf_counter

import torch
from torch import nn
from torch.nn import functional

from clr_native.demo.contenders import TUNED, Bounds, Contender
from clr_native.demo.data import Digits
from clr_native.demo.network import convolutional_network

BATCH_SIZE = 64
EPOCHS_PER_CYCLE = 4


@dataclass
class Run:
    """One training run so far. The last list has an entry an epoch, the others have one a step."""

    library: str
    network: nn.Module
    steps_per_epoch: int
    lr: list[float] = field(default_factory=list)
    momentum: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    optimizer_seconds: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)

    @property
    def epoch_loss(self) -> list[float]:
        """Returns the mean training loss of each epoch."""
        starts = range(0, len(self.loss), self.steps_per_epoch)
        return [fmean(self.loss[start : start + self.steps_per_epoch]) for start in starts]


def steps_per_epoch(digits: Digits) -> int:
    """Returns the number of batches of an epoch. The last one may be smaller than the others."""
    return math.ceil(len(digits.train_labels) / BATCH_SIZE)


def train(
    digits: Digits,
    contender: Contender,
    epochs: int,
    seed: int,
    bounds: Bounds = TUNED,
    *,
    on_step: Callable[[Run], None],
    on_epoch: Callable[[Run], None],
) -> Run:
    """Train a new network. The same seed gives the same initial weights and batches, to the bit."""
    torch.manual_seed(seed)
    network = convolutional_network(digits.side)
    run = Run(contender.library, network, steps_per_epoch(digits))
    optimizer, step = contender.lines(network.parameters(), EPOCHS_PER_CYCLE // 2 * run.steps_per_epoch, bounds)
    group = optimizer.param_groups[0]
    for _ in range(epochs):
        for images, labels in digits.batches(BATCH_SIZE):
            loss = functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            run.lr.append(group["lr"])
            run.momentum.append(group["momentum"])
            start = perf_counter()
            step()
            run.optimizer_seconds.append(perf_counter() - start)
            run.loss.append(loss.item())
            on_step(run)
        run.test_accuracy.append(accuracy(network, digits))
        on_epoch(run)
    return run


@torch.no_grad()
def accuracy(network: nn.Module, digits: Digits) -> float:
    """Returns the share of test images that are read right."""
    guesses = network(digits.test_images).argmax(dim=1)
    return float((guesses == digits.test_labels).double().mean())
