"""The setting lr_factor."""

from __future__ import annotations

import pytest
import torch

from clr_native import FusedCyclicSGD


def test_an_lr_factor_is_that_of_a_schedule_with_other_bounds() -> None:
    ours, twin = (torch.nn.Parameter(torch.ones(5)) for _ in range(2))
    optimizers = [FusedCyclicSGD([ours], 0.25, 0.5, lr_factor=0.5), FusedCyclicSGD([twin], 0.125, 0.25)]
    for _ in range(5):
        for parameter, optimizer in zip((ours, twin), optimizers, strict=True):
            parameter.grad = torch.ones(5)
            optimizer.step()
    assert torch.equal(ours, twin)
    with pytest.raises(ValueError, match="lr_factor=-1.0 must be finite and not negative"):
        FusedCyclicSGD([ours], 0.25, 0.5, lr_factor=-1.0)
