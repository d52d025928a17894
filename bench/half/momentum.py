"""Momentum in bfloat16 beside float32 weights: 16 bytes an element instead of 20. Ours against ours."""

from __future__ import annotations

import torch

from bench.harness.contenders import VERIFIED_STEPS, Contender, build_ours, build_torch, equal, give_rates
from bench.harness.names import BFLOAT16, FLOAT32
from bench.harness.question import Question
from bench.harness.workloads import Gradients, Refilled, Workload, gradient_sets

DTYPES = {FLOAT32: torch.float32, BFLOAT16: torch.bfloat16}


def build(name: str, tensors: Refilled) -> Contender:
    return build_ours(tensors, momentum_dtype=str(DTYPES[name]).removeprefix("torch."))


def verify(name: str, workload: Workload, gradients: Gradients) -> None:
    """From the same weights and buffers, every step's weights equal those of torch's loop in float32 bit for bit, and
    its buffers torch's rounded to nearest: the momentum is rounded to be kept and for nothing else."""
    tensors, reference_tensors = Refilled(workload, gradients), Refilled(workload, gradients)
    contender, reference = build(name, tensors), build_torch("loop", reference_tensors)
    what = f"{name}, {workload.name}"
    for _ in range(VERIFIED_STEPS):
        give_rates(contender, reference)
        for stepped, turned in ((contender, tensors), (reference, reference_tensors)):
            turned.turn()
            stepped.step()
        rounded = [buffer.to(DTYPES[name]) for buffer in reference.momentum_buffers()]
        equal(f"{what}, weights", tensors.parameters, reference_tensors.parameters)
        equal(f"{what}, momentum", contender.momentum_buffers(), rounded)
        torch._foreach_copy_(reference.momentum_buffers(), rounded)


QUESTION = Question("bfloat16 momentum", ("resnet-50",), tuple(DTYPES), gradient_sets, build, verify)
