"""Rates by hand: lr and momentum written into every group before every step, as ultralytics, ffcv and fastai do."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.harness.contenders import (
    BASE_MOMENTUM,
    MAX_MOMENTUM,
    OURS,
    TORCH,
    VERIFIED_STEPS,
    WEIGHT_DECAY,
    Contender,
    bounds,
    build_ours,
    equal,
    nearly_equal,
    sgd_arguments,
)
from bench.harness.names import SCHEDULED
from bench.harness.question import Question
from bench.harness.workloads import Gradients, Refilled, Workload, gradient_sets
from clr_native import FusedCyclicSGD

CYCLE = 4000  # steps


def driven(optimizer: torch.optim.Optimizer, groups: int) -> Callable[[], None]:
    """A step with a triangle of rates written before it."""
    limits = bounds(groups)
    count = 0

    def step() -> None:
        nonlocal count
        share = abs(2 * (count % CYCLE) / CYCLE - 1)
        count += 1
        for group, (low, high) in zip(optimizer.param_groups, limits, strict=True):
            group["lr"] = high - (high - low) * share
            group["momentum"] = BASE_MOMENTUM + (MAX_MOMENTUM - BASE_MOMENTUM) * share
        optimizer.step()

    return step


def build(name: str, tensors: Refilled) -> Contender:
    if name == SCHEDULED:
        return build_ours(tensors)
    optimizer: torch.optim.Optimizer
    if name == OURS:
        optimizer = FusedCyclicSGD([{"params": each} for each in tensors.groups()], lr=0.1, weight_decay=WEIGHT_DECAY)
    else:
        optimizer = torch.optim.SGD(**sgd_arguments(tensors), **TORCH[name])
    return Contender(optimizer, driven(optimizer, tensors.workload.groups))


def verify(name: str, workload: Workload, gradients: Gradients) -> None:
    """Ours equals torch's loop bit for bit. The scheduled one is a step's row, which verifies it."""
    if name == SCHEDULED:
        return
    tensors, reference_tensors = Refilled(workload, gradients), Refilled(workload, gradients)
    contender, reference = build(name, tensors), build("loop", reference_tensors)
    for _ in range(VERIFIED_STEPS):
        for stepped, turned in ((contender, tensors), (reference, reference_tensors)):
            turned.turn()
            stepped.step()
    close = equal if name == OURS else nearly_equal
    close(f"{name}, {workload.name}, weights", tensors.parameters, reference_tensors.parameters)


QUESTION = Question(
    "by hand", ("mlp", "1000x64", "1000-groups"), (OURS, SCHEDULED, *TORCH), gradient_sets, build, verify
)
