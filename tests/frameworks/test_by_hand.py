"""A loop like ultralytics', from its description: rates by hand in warm-up, clip 10, three groups, averages."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

import plain_loop as plain
from clr_native import FusedCyclicSGD, GradScaler

WARMUP = 25


def groups_of(network: nn.Module) -> list[dict[str, Any]]:
    """Weights with decay, and biases, whose rate falls in warm-up from a high one."""
    named = dict(network.named_parameters())
    weights = [p for name, p in named.items() if name.endswith("weight")]
    biases = [p for name, p in named.items() if name.endswith("bias")]
    return [
        {"params": biases, "weight_decay": 0.0, "param_group": "bias"},
        {"params": weights[:1], "weight_decay": 5e-4, "param_group": "weight"},
        {"params": weights[1:], "weight_decay": 0.0, "param_group": "bn"},
    ]


def run(kind: Any, clips: bool, scaler: torch.amp.GradScaler) -> tuple[nn.Module, nn.Module, Any]:
    network = plain.model()
    average = copy.deepcopy(network)
    settings = {"max_grad_norm": 10.0} if clips else {}
    optimizer = kind(groups_of(network), lr=0.01, momentum=0.937, nesterov=True, **settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 - 0.9 * epoch / plain.EPOCHS)
    for step in range(plain.STEPS):
        if step <= WARMUP:
            for group in optimizer.param_groups:
                begin = 0.1 if group["param_group"] == "bias" else 0.0
                group["lr"] = begin + (0.01 - begin) * step / WARMUP
                group["momentum"] = 0.8 + (0.937 - 0.8) * step / WARMUP
        scaler.scale(plain.loss_of(network, plain.batches()[step % plain.BATCHES]) * 30).backward()
        scaler.unscale_(optimizer)
        if not clips:
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        decay = 0.9999 * (1 - math.exp(-(step + 1) / 2000))
        with torch.no_grad():
            for slow, fast in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                slow.mul_(decay).add_((1 - decay) * fast)
        if step % plain.BATCHES == plain.BATCHES - 1:
            schedule.step()
    return network, average, optimizer


@pytest.mark.parametrize("kind", [torch.amp.GradScaler, GradScaler])
def test_rates_and_momenta_by_hand(kind: Any) -> None:
    """Under a rate by itself each update uses what stands in the groups, and every update counts."""
    ours, our_average, optimizer = run(FusedCyclicSGD, False, kind("cpu", init_scale=2.0**10))
    theirs, their_average, _ = run(torch.optim.SGD, False, torch.amp.GradScaler("cpu", init_scale=2.0**10))
    plain.assert_same(ours, theirs)
    plain.assert_same(our_average, their_average)
    assert optimizer.applied_steps == plain.STEPS
    ours, _, _ = run(FusedCyclicSGD, True, kind("cpu", init_scale=2.0**10))
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)  # our norm is rounded once
