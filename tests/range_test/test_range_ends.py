"""When a range test ends: at the end of its ramp, at a loss that is not finite, at divergence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from clr_native import lr_range_test
from clr_native.range_test.stopping import Divergence
from range_helpers import batches, linear, mse, quick, trial

DATA = batches(dtype=torch.float64)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_it(bad: float) -> None:
    model = linear()
    losses = iter([3.0, 2.0, bad])
    steps = []
    sgd = SGD(model.parameters(), lr=1.0)
    sgd.register_step_pre_hook(lambda *_: steps.append(1))
    result = lr_range_test(
        model, sgd, None, DATA, step_fn=lambda batch: model.weight.sum() * 0 + next(losses), **quick()
    )
    assert result.loss.tolist() == [3.0, 2.0]
    assert result.stopped == f"loss={bad} is not finite at step 2, lr=0.00630957"
    assert len(steps) == 2


def test_a_validation_loss_that_is_not_finite_ends_it() -> None:

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        loss = mse(outputs, targets)
        return loss if torch.is_grad_enabled() else loss * math.inf

    result = trial(linear(), loss_fn, DATA, val_loader=DATA, val_every=2)
    assert result.stopped == "validation loss=inf is not finite at step 1, lr=0.00251189"
    assert len(result.lr) == 1


def test_real_divergence_ends_it() -> None:
    model = linear(torch.float32)
    result = lr_range_test(model, SGD(model.parameters(), lr=1.0), mse, batches())
    assert "times its range" in result.stopped
    assert 20 < len(result.lr) < 100
    assert np.isfinite(result.loss).all()
    assert result.loss[-1] > 4 * result.loss.min()


def ends_at(losses: np.ndarray[Any, np.dtype[np.float64]], factor: float = 4.0) -> int | None:
    divergence = Divergence(factor)
    return next((step for step, loss in enumerate(losses.tolist()) if divergence.observe(loss)), None)


def test_divergence_is_judged_by_range() -> None:
    step = np.arange(80.0)
    falls = 2.0 - 1.6 / (1.0 + np.exp(-(step - 40.0) / 3.0))
    rises = falls + np.where(step > 60, (step - 60.0) ** 2, 0.0)
    assert ends_at(falls) is None
    end = ends_at(rises)
    assert end is not None
    assert 62 <= end <= 67
    # Moved to negative losses, and scaled, it ends at the same point; fastai's rule would end the first at once.
    assert ends_at(rises - 10.0) == ends_at(rises * 1e-6) == ends_at(1e3 * rises - 2e3) == end
    assert ends_at(rises, math.inf) is None
    assert ends_at(rises, 100.0) > end  # type: ignore[operator]  # both end


def test_one_ragged_batch_and_noise_do_not_end_it() -> None:
    noise = np.random.default_rng(0).standard_normal(1000)
    assert ends_at(2.3 + 0.1 * noise) is None
    assert ends_at(2.3 + 0.1 * noise, 2.0) is None
    ragged = 2.3 - 0.01 * np.arange(100.0)
    ragged[[50, 70]] = 1e6
    assert ends_at(ragged) is None
    assert ends_at(np.full(100, 0.5)) is None
