"""Who is compared on a GPU, on what, and how it is verified."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

import clr_native
from bench.harness import contenders as pairs
from bench.harness.contenders import (
    OURS,
    SCHEDULE_TOLERANCE,
    TORCH_TOLERANCE,
    VERIFIED_STEPS,
    Contender,
    equal,
    nearly_equal,
)
from bench.harness.names import OUR_SCALER
from bench.harness.workloads import WORKLOADS, Gradients, Refilled, Tensors, Workload, gradient_sets
from bench.step import lars
from bench.whole_step import chain

APEX = "apex"
REPLAYED = f"{OURS}, replayed"
LAST = "1000-groups"  # by far the longest: torch's take some 100 ms a step
STEPS_BEFORE_CAPTURE = 2

Build = Callable[[str, Refilled], Contender]


class Placed(Refilled):
    """Parameters have the device and the dtype of the gradients, which are given."""

    def __init__(self, workload: Workload, gradients: Gradients) -> None:
        self.like = gradients[0][0]
        super().__init__(workload, gradients)

    def parameter(self, values: Tensor) -> Tensor:
        return torch.nn.Parameter(values.to(self.like))


class Kept(Placed):
    """Gradients that no step writes into are handed out as they are."""

    turn = Tensors.turn


class InPlace(Placed):
    """Gradients lie where they lay, as a graph finds them."""

    def turn(self) -> None:
        super().turn()
        torch._foreach_copy_(self.written[0], self.gradients[self.current])
        for parameter, gradient in zip(self.parameters, self.written[0], strict=True):
            parameter.grad = gradient


@dataclass(frozen=True)
class Question:
    """`ours` is the contender that others are compared with."""

    name: str
    contenders: tuple[str, ...]
    workloads: tuple[str, ...]
    bytes_an_element: int  # that our step has to move: see bench/README.md
    build: Build = pairs.build
    gradients: Callable[[Workload], Gradients] = gradient_sets
    tensors: type[Placed] = Kept
    kept: tuple[str, ...] = ("momentum_buffer",)  # what stands in the state of ours afterwards, beside the weights
    tolerance: float = TORCH_TOLERANCE  # of torch's: a share of a tensor's norm

    @property
    def ours(self) -> str:
        return self.contenders[0]


def apex_sgd() -> Any:
    """apex's FusedSGD, or None where it is not installed, or without its CUDA extensions."""
    try:
        importlib.import_module("amp_C")
        return importlib.import_module("apex.optimizers").FusedSGD
    except ImportError:
        return None


def build_plain(name: str, tensors: Refilled) -> Contender:
    if name != APEX:
        return pairs.build(name, tensors)
    optimizer = apex_sgd()(**pairs.sgd_arguments(tensors))
    return pairs.pair_of(optimizer, pairs.cyclic_lr(optimizer, tensors))


def build_clipped(name: str, tensors: Refilled) -> Contender:
    if name == OURS:
        return pairs.build_ours(tensors, max_grad_norm=chain.MAX_NORM)
    pair = pairs.build_torch(name, tensors)

    def step() -> None:
        clip_grad_norm_(tensors.parameters, chain.MAX_NORM)
        pair.step()

    return Contender(pair.optimizer, step)


def build_replayed(name: str, tensors: Refilled) -> Contender:
    """The first steps of the replayed one are ordinary ones, the next is captured: each applies one update."""
    if name != REPLAYED:
        return pairs.build(name, tensors)
    eager = pairs.build_ours(tensors)
    if not tensors.parameters[0].is_cuda:
        return eager  # the reference
    graph = torch.cuda.CUDAGraph()
    before = 0

    def step() -> None:
        nonlocal before
        if before < STEPS_BEFORE_CAPTURE:
            before += 1
            eager.step()
            return
        if before == STEPS_BEFORE_CAPTURE:
            before += 1
            with torch.cuda.graph(graph):
                eager.step()
        graph.replay()

    return Contender(eager.optimizer, step)


def in_dtype(dtype: torch.dtype) -> Callable[[Workload], Gradients]:
    def gradients(workload: Workload) -> Gradients:
        first, second = ([each.to(dtype) for each in kept] for kept in gradient_sets(workload))
        return first, second

    return gradients


def of_16_bits(name: str, dtype: torch.dtype) -> Question:
    """torch rounds at other places: half an eps, at most four times in each of the verified steps."""
    tolerance = 2 * VERIFIED_STEPS * torch.finfo(dtype).eps
    works = ("resnet-50", "gpt-2")
    return Question(name, (OURS, *RIVALS), works, 10, gradients=in_dtype(dtype), tolerance=tolerance)


RIVALS = ("fused", "foreach")


def questions() -> dict[str, Question]:
    """By name, in the order in which they are asked."""
    everything = tuple(WORKLOADS)
    apex = () if apex_sgd() is None else (APEX,)
    replay = (REPLAYED, OURS, *RIVALS)
    whole = (*chain.SCALERS, *RIVALS)
    assert whole[0] == OUR_SCALER
    averages = ("momentum_buffer", "average")
    asked = (
        Question("plain", (OURS, *RIVALS, *apex), everything, 20, build_plain),
        Question("replay", replay, ("mlp", "1000x64", "resnet-50"), 20, build_replayed, tensors=InPlace),
        of_16_bits("bfloat16", torch.bfloat16),
        of_16_bits("float16", torch.float16),
        Question("clip", (OURS, *RIVALS), ("mlp", "2000x256", "resnet-50"), 24, build_clipped, tensors=Placed),
        Question("lars", (OURS, *RIVALS), lars.QUESTION.workloads, 28, lars.build, tensors=Placed),
        Question("whole-step", whole, everything, 32, chain.build, chain.scaled_gradients, Placed, averages),
    )
    return {each.name: each for each in asked}


def cases(names: Sequence[str], works: Sequence[str]) -> list[tuple[Question, Workload]]:
    """In the order in which they are measured: the longest last, for a run may be cut short."""
    asked = questions()
    found = [(asked[name], work) for name in names for work in works if work in asked[name].workloads]
    return [(question, WORKLOADS[work]) for question, work in sorted(found, key=lambda case: case[1] == LAST)]


# --- verified before anything is timed ------------------------------------------------------------------------------


def on_gpu(gradients: Gradients) -> Gradients:
    first, second = ([each.cuda() for each in kept] for kept in gradients)
    return first, second


def verify(question: Question, name: str, workload: Workload, gradients: Gradients) -> None:
    """AssertionError unless ours on the GPU equals ours on the CPU bit for bit, and others are near."""
    tensors, reference_tensors = question.tensors(workload, on_gpu(gradients)), question.tensors(workload, gradients)
    contender = question.build(name, tensors)
    reference = question.build(question.ours, reference_tensors)
    own = isinstance(contender.optimizer, clr_native.FusedCyclicSGD)
    what = f"{name}, {workload.name}"
    for _ in range(VERIFIED_STEPS):
        if isinstance(contender.optimizer, clr_native.FusedCyclicSGD):
            _ = contender.optimizer.applied_steps  # after a replay the groups are written when they are asked for
        for group, wanted in zip(contender.optimizer.param_groups, reference.optimizer.param_groups, strict=True):
            for key in ("lr", "momentum"):
                apart = abs(group[key] - wanted[key])
                assert apart <= SCHEDULE_TOLERANCE, f"{what}: {key} is {apart!r} away from ours on the CPU"
        for stepped, turned in ((contender, tensors), (reference, reference_tensors)):
            turned.turn()
            stepped.step()
    compared = {"weights": (tensors.parameters, reference_tensors.parameters)}
    for key in question.kept if own else ("momentum_buffer",):
        compared[key] = (pairs.kept(contender.optimizer, key), pairs.kept(reference.optimizer, key))
    for key, (found, expected) in compared.items():
        if own:
            equal(f"{what}, {key}", on_cpu(found), on_cpu(expected))
        else:
            nearly_equal(f"{what}, {key}", on_cpu(found), on_cpu(expected), question.tolerance)


def on_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """In float32, which holds values of 16 bits."""
    return [each.detach().cpu().float() for each in tensors]
