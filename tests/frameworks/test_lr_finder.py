"""torch-lr-finder, whose schedule drives a rate by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("torch_lr_finder")

from torch_lr_finder import LRFinder

import plain_loop as plain
from clr_native import FusedCyclicSGD

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of torch-lr-finder, about tqdm and torch


def test_the_curve_is_that_of_sgd() -> None:
    curves: list[Any] = []
    for kind in (FusedCyclicSGD, torch.optim.SGD):
        network = plain.model()
        finder = LRFinder(network, kind(network.parameters(), lr=1e-4, momentum=0.9), torch.nn.functional.mse_loss)
        finder.range_test(plain.loader(), end_lr=1.0, num_iter=30)
        curves.append(finder.history)
        finder.reset()
        plain.assert_same(network, plain.model())
    assert curves[0] == curves[1]
