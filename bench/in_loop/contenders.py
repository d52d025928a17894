"""A training for each contender: ours, and torch's three SGDs with CyclicLR, each over a model of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from time import perf_counter_ns
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CyclicLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bench.harness.contenders import (
    BASE_MOMENTUM,
    MAX_MOMENTUM,
    OURS,
    STEP_SIZE_UP,
    TORCH,
    WEIGHT_DECAY,
)
from bench.harness.rounds import seconds
from bench.in_loop.floor import Floor
from bench.in_loop.networks import Network, loss_of
from bench.step.floor import available
from clr_native import CyclicSchedule, FusedCyclicSGD, GradScaler

FLOOR = "floor"
MAX_NORM, EMA_DECAY, SCALE, NEVER = 1.0, 0.999, 2.0**10, 10**9

CYCLE: dict[str, Any] = {
    "base_lr": 1e-4,
    "max_lr": 6e-4,
    "step_size_up": STEP_SIZE_UP,
    "base_momentum": BASE_MOMENTUM,
    "max_momentum": MAX_MOMENTUM,
}


@dataclass
class Loop:
    """A training. ``lines``: what stands behind backward(), up to zero_grad(). It returns its seconds."""

    model: nn.Module
    zero_grad: Callable[[], None]  # which sets gradients to None
    lines: Callable[[], float]
    scale: Callable[[Tensor], Tensor] = lambda loss: loss

    def iterate(self, batch: Tensor) -> tuple[float, float]:
        """One iteration. Returns the seconds of the optimizer's lines, and those of all."""
        start = perf_counter_ns()
        loss = loss_of(self.model, batch)
        torch.autograd.backward(self.scale(loss))
        took = self.lines()
        self.zero_grad()
        return took, (perf_counter_ns() - start) * 1e-9


def groups_of(network: Network, model: nn.Module) -> list[dict[str, Any]]:
    parameters = list(model.parameters())
    return [{"params": [p]} for p in parameters] if network.a_group_a_tensor else [{"params": parameters}]


def build(name: str, network: Network, whole_tail: bool) -> Loop:
    builder = {OURS: _ours, FLOOR: _floor}.get(name, _torchs)
    return builder(name, network, network.model(), whole_tail)


def _floor(_: str, network: Network, model: nn.Module, whole_tail: bool) -> Loop:
    """It does not advance the schedule itself."""
    parameters = list(model.parameters())
    averages = [each.detach().clone() for each in parameters] if whole_tail else []
    tail = {"max_norm": MAX_NORM, "average_weight": 1 - EMA_DECAY} if whole_tail else {}
    scale = SCALE if whole_tail else 1.0
    bare, steps = Floor(parameters, averages, scale, tail), count()
    schedule = CyclicSchedule(**CYCLE)
    return Loop(model, model.zero_grad, lambda: bare.step(*schedule(next(steps))), lambda loss: scale * loss)


def _ours(_: str, network: Network, model: nn.Module, whole_tail: bool) -> Loop:
    settings: dict[str, Any] = {"max_grad_norm": MAX_NORM, "ema_decay": EMA_DECAY} if whole_tail else {}
    optimizer = FusedCyclicSGD(groups_of(network, model), **CYCLE, weight_decay=WEIGHT_DECAY, **settings)
    if not whole_tail:
        return Loop(model, optimizer.zero_grad, lambda: seconds(optimizer.step))
    scaler = GradScaler("cpu", init_scale=SCALE, growth_interval=NEVER)

    def lines() -> None:
        scaler.step(optimizer)
        scaler.update()

    return Loop(model, optimizer.zero_grad, lambda: seconds(lines), scaler.scale)


def _torchs(name: str, network: Network, model: nn.Module, whole_tail: bool) -> Loop:
    optimizer = torch.optim.SGD(
        groups_of(network, model), lr=CYCLE["base_lr"], momentum=MAX_MOMENTUM, weight_decay=WEIGHT_DECAY, **TORCH[name]
    )
    scheduler = CyclicLR(optimizer, **CYCLE)

    def step() -> None:
        optimizer.step()
        scheduler.step()

    if not whole_tail:
        return Loop(model, optimizer.zero_grad, lambda: seconds(step))
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=NEVER)
    ema = get_ema_multi_avg_fn(EMA_DECAY)  # type: ignore[no-untyped-call]  # torch gives it no types
    average = AveragedModel(model, multi_avg_fn=ema)

    def lines() -> None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        average.update_parameters(model)

    return Loop(model, optimizer.zero_grad, lambda: seconds(lines), scaler.scale)


VERIFIED_ITERATIONS = 3
# One rounding of ours stands where torch makes several: in the rate of each step, and in the norm, a sum in float32 of
# torch's. Batch norm over few images enlarges the latter with every iteration: one must do for the whole tail.
TOLERANCE = 1e-5


def verify(network: Network, whole_tail: bool) -> None:
    """AssertionError unless ours and the floor train as torch's loop: to the rounding of its rates and of its norm."""
    loops = [build(name, network, whole_tail) for name in ("loop", OURS, FLOOR)[: 3 if available() else 2]]
    for batch in network.batches(1 if whole_tail else VERIFIED_ITERATIONS):
        for loop in loops:
            loop.iterate(batch)
    for theirs, *others in zip(*(loop.model.parameters() for loop in loops), strict=True):
        for other in others:
            apart = torch.dist(other, theirs).item() / max(theirs.norm().item(), 1e-30)
            assert apart <= TOLERANCE, f"{network.title}: a tensor is {apart!r} of its norm away from torch's loop"
