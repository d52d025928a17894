"""The whole step, which is all that is called after ``backward()``: torch's chain, and our one pass.

Unscale, clip by norm, step, update of the scale, CyclicLR, exponential moving average of the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import clr_native
from bench.harness.contenders import (
    TORCH,
    TORCH_TOLERANCE,
    VERIFIED_STEPS,
    Contender,
    equal,
    give_rates,
    kept,
    nearly_equal,
    ours,
    torch_pair,
)
from bench.harness.names import OUR_SCALER, TORCH_SCALER
from bench.harness.question import Question
from bench.harness.workloads import Gradients, Refilled, Workload, gradient_sets

SCALERS: dict[str, type[torch.amp.GradScaler]] = {
    OUR_SCALER: clr_native.GradScaler,
    TORCH_SCALER: torch.amp.GradScaler,
}

SCALE = 2.0**16  # GradScaler's own first one
NEVER = 10**9  # steps before the scale grows: every step is the same work
MAX_NORM = 1.0  # far below the norm of every workload here: the clipping is active
EMA_DECAY = 0.999
NORM_TOLERANCE = 1e-12


def scaled_gradients(workload: Workload) -> Gradients:
    """As ``scaler.scale(loss).backward()`` leaves them. A power of two: unscaled, they are the plain ones again."""
    sets = gradient_sets(workload)
    for each in sets:
        torch._foreach_mul_(each, SCALE)
    return sets


@dataclass(frozen=True)
class WholeStep(Contender):
    """``norm``: of the unscaled gradients of the last step, before clipping."""

    norm: Callable[[], Tensor]
    averages: Callable[[], list[Tensor]]


def new_scaler(kind: type[torch.amp.GradScaler], device: torch.device) -> torch.amp.GradScaler:
    scaler = kind(device.type, init_scale=SCALE, growth_interval=NEVER)
    scaler.scale(torch.ones((), device=device))  # its tensors are made at the first loss
    return scaler


def build_ours(scaler_name: str, tensors: Refilled) -> WholeStep:
    optimizer = ours(tensors, max_grad_norm=MAX_NORM, ema_decay=EMA_DECAY, grad_scale_in_step=True)
    scaler = new_scaler(SCALERS[scaler_name], tensors.device)

    def step() -> None:
        scaler.step(optimizer)
        scaler.update()

    def norm() -> Tensor:
        return torch.tensor(optimizer.last_grad_norm, dtype=torch.float64)

    return WholeStep(optimizer, step, norm, lambda: kept(optimizer, "average"))


def build_torch(kind: str, tensors: Refilled, norm: Callable[[], Tensor] | None = None) -> WholeStep:
    """torch's chain as its manuals write it; clipped by a given norm, if one is given, instead of its own."""
    model = tensors.model
    optimizer, scheduler = torch_pair(kind, tensors)
    scaler = new_scaler(torch.amp.GradScaler, tensors.device)
    ema = get_ema_multi_avg_fn(EMA_DECAY)  # type: ignore[no-untyped-call]  # torch gives it no types
    average = AveragedModel(model, multi_avg_fn=ema)
    found = torch.zeros(())

    def clip() -> Tensor:
        if norm is None:
            return clip_grad_norm_(model.parameters(), MAX_NORM)
        clip_grads_with_norm_(model.parameters(), MAX_NORM, norm())
        return norm()

    def step() -> None:
        nonlocal found
        scaler.unscale_(optimizer)
        found = clip()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        average.update_parameters(model)

    return WholeStep(optimizer, step, lambda: found, lambda: [each.detach() for each in average.module.parameters()])


def build(name: str, tensors: Refilled) -> WholeStep:
    return build_ours(name, tensors) if name in SCALERS else build_torch(name, tensors)


def verify(name: str, workload: Workload, gradients: Gradients) -> None:
    """Our weights, buffers and averages equal those of torch's loop bit for bit, lr, momentum and the norm given.

    The norm itself is held against torch's of the same gradients in float64.
    """
    tensors, reference_tensors = Refilled(workload, gradients), Refilled(workload, gradients)
    contender = build(name, tensors)
    reference = build_torch("loop", reference_tensors, contender.norm)
    close, tolerance = (equal, NORM_TOLERANCE) if name in SCALERS else (nearly_equal, TORCH_TOLERANCE)
    for _ in range(VERIFIED_STEPS):
        give_rates(contender, reference)
        for stepped, turned in ((contender, tensors), (reference, reference_tensors)):
            turned.turn()
            stepped.step()
        wanted = get_total_norm([each.double() for each in gradients[tensors.current]]).item() / SCALE
        found = contender.norm().item()
        assert abs(found - wanted) <= tolerance * wanted, f"{name}, {workload.name}: norm={found!r}, {wanted!r}"
        assert found > MAX_NORM, f"{workload.name}: norm={found!r} is not clipped"
    what = f"{name}, {workload.name}"
    close(f"{what}, weights", tensors.parameters, reference_tensors.parameters)
    close(f"{what}, momentum", contender.momentum_buffers(), reference.momentum_buffers())
    close(f"{what}, averages", contender.averages(), reference.averages())


QUESTION = Question("whole step", ("mlp", "2000x256", "resnet-50"), (*SCALERS, *TORCH), scaled_gradients, build, verify)
