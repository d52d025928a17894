"""FSDP2: an optimizer over shards does what one process does with the same gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers import every_parameter
from processes import case
from shards import Both, gradients, whole

STEPS = 200


def run(both: Both, steps: int = STEPS, *, clips: bool = False, scale: float = 1.0) -> None:
    for number, each in enumerate(gradients(every_parameter(both.alone), steps, scale=scale)):
        if number % 9 == 4 and both.sharded.skip_nonfinite:
            each[number % len(each)].view(-1)[-1] = torch.inf
        both.step([None if i == number % 11 else g for i, g in enumerate(each)] if number > 20 else each)
        if clips and not both.sharded.last_step_skipped:
            own, other = both.sharded.last_grad_norm, both.alone.last_grad_norm
            assert own is not None
            assert other is not None
            assert own == pytest.approx(other, rel=1e-14)
            assert np.float32(own) == np.float32(other)
    both.assert_same()


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "decay": {"weight_decay": 0.01, "nesterov": True},
    "averages": {"ema_decay": 0.9, "weight_decay": 0.01},
    "swa": {"average": "swa"},
    "clipped": {"max_grad_norm": 0.5, "ema_decay": 0.9},
    "skips": {"skip_nonfinite": True, "nesterov": True},
    "all": {"max_grad_norm": 0.5, "skip_nonfinite": True, "ema_decay": 0.9, "ema_warmup": True, "weight_decay": 0.01},
    "narrow buffers": {"momentum_dtype": "bfloat16", "max_grad_norm": 1.0},
}


@case((2, 3))
def trains_as_one_process() -> None:
    for settings in SETTINGS.values():
        run(Both(**settings), clips="max_grad_norm" in settings)


@case((2, 3))
def trains_as_one_process_in_other_dtypes() -> None:
    run(Both(dtype=torch.float64, ema_decay=0.9, skip_nonfinite=True))
    for dtype in (torch.bfloat16, torch.float16):
        for settings in ({}, {"kahan": True}, {"master_weights": True, "ema_decay": 0.9}):
            run(Both(dtype=dtype, max_grad_norm=0.5, **settings))


@case((2, 3))
def clips_float64() -> None:
    both = Both(dtype=torch.float64, max_grad_norm=0.5)
    for each in gradients(every_parameter(both.alone), STEPS):
        both.step(each)
        assert both.sharded.last_grad_norm == pytest.approx(both.alone.last_grad_norm, rel=1e-14)


@case((2, 3))
def takes_trust_ratios_of_whole_parameters() -> None:
    both = Both(trust_coefficient=0.02, weight_decay=0.01, max_grad_norm=2.0, dtype=torch.float64)
    for each in gradients(every_parameter(both.alone), STEPS):
        both.step(each)
    for p, q in zip(every_parameter(both.sharded), every_parameter(both.alone), strict=True):
        torch.testing.assert_close(whole(p), q.detach(), rtol=1e-12, atol=1e-14)
