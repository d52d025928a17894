"""What every test gets: fixed random numbers, and torch's threads left as they were."""

from __future__ import annotations

import os
from collections.abc import Iterator

# A waiting thread sleeps (libgomp reads this once): spinning on a busy machine costs a time slice a step.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """A test's thread count is its own."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
