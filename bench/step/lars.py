"""LARS: our trust ratio inside the step beside the lines that people write around torch's SGD."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.harness.contenders import (
    OURS,
    TORCH,
    VERIFIED_STEPS,
    WEIGHT_DECAY,
    Contender,
    build_ours,
    equal,
    give_rates,
    nearly_equal,
    torch_pair,
)
from bench.harness.question import Question
from bench.harness.workloads import Gradients, Refilled, Workload, gradient_sets

TRUST_COEFFICIENT, TRUST_EPS = 1e-3, 1e-8

Rescale = Callable[[list[Tensor], int], None]


def least_dimensions(workload: Workload) -> int:
    """Matrices and kernels are trusted, or vectors where there is nothing else."""
    return min(2, max(map(len, workload.shapes)))


@torch.no_grad()
def rescale_each(parameters: list[Tensor], least: int, norms_in: torch.dtype | None = None) -> None:
    """The gradients become trust ratio * (gradient + weight decay * parameter): a parameter after the other."""
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        trusted = parameter.dim() >= least
        if trusted:
            weight_norm = torch.linalg.vector_norm(parameter, dtype=norms_in).item()
            gradient_norm = torch.linalg.vector_norm(gradient, dtype=norms_in).item()
        gradient.add_(parameter, alpha=WEIGHT_DECAY)
        if trusted and weight_norm > 0 and gradient_norm > 0:
            gradient.mul_(TRUST_COEFFICIENT * weight_norm / (gradient_norm + WEIGHT_DECAY * weight_norm + TRUST_EPS))


@torch.no_grad()
def rescale_all(parameters: list[Tensor], least: int) -> None:
    """The same with torch's foreach functions: the fewest calls and passes found."""
    both = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    weights, gradients = [parameter for parameter, _ in both], [gradient for _, gradient in both]
    trusted = [at for at, parameter in enumerate(weights) if parameter.dim() >= least]
    scaled = [gradients[at] for at in trusted]
    weight_norms = torch.stack(torch._foreach_norm([weights[at] for at in trusted]))
    gradient_norms = torch.stack(torch._foreach_norm(scaled))
    ratios = TRUST_COEFFICIENT * weight_norms / (gradient_norms + WEIGHT_DECAY * weight_norms + TRUST_EPS)
    ratios = torch.where((weight_norms > 0) & (gradient_norms > 0), ratios, 1.0)
    torch._foreach_add_(gradients, weights, alpha=WEIGHT_DECAY)
    torch._foreach_mul_(scaled, ratios.tolist())


def build_torch(kind: str, tensors: Refilled, rescale: Rescale) -> Contender:
    """What apex's LARC does: the gradients are rescaled in place, then torch's SGD goes on without weight decay."""
    optimizer, scheduler = torch_pair(kind, tensors, weight_decay=0.0)
    least = least_dimensions(tensors.workload)

    def step() -> None:
        rescale(tensors.parameters, least)
        optimizer.step()
        scheduler.step()

    return Contender(optimizer, step)


def build(name: str, tensors: Refilled) -> Contender:
    if name != OURS:
        return build_torch(name, tensors, rescale_each if name == "loop" else rescale_all)
    least = least_dimensions(tensors.workload)
    return build_ours(tensors, trust_coefficient=TRUST_COEFFICIENT, trust_eps=TRUST_EPS, trust_min_ndim=least)


def reference_rescale(parameters: list[Tensor], least: int) -> None:
    rescale_each(parameters, least, torch.float64)


def verify(name: str, workload: Workload, gradients: Gradients) -> None:
    """Ours equals the loop with norms in float64 bit for bit; torch's, with norms in float32, to their rounding."""
    tensors, reference_tensors = Refilled(workload, gradients), Refilled(workload, gradients)
    contender, reference = build(name, tensors), build_torch("loop", reference_tensors, reference_rescale)
    for _ in range(VERIFIED_STEPS):
        give_rates(contender, reference)
        for stepped, turned in ((contender, tensors), (reference, reference_tensors)):
            turned.turn()
            stepped.step()
    close = equal if name == OURS else nearly_equal
    what = f"{name}, {workload.name}"
    close(f"{what}, weights", tensors.parameters, reference_tensors.parameters)
    close(f"{what}, momentum", contender.momentum_buffers(), reference.momentum_buffers())


QUESTION = Question("lars", ("2000x256", "resnet-50"), (OURS, *TORCH), gradient_sets, build, verify)
