"""What is compared: our optimizer, and torch's three SGDs with CyclicLR. One line of a training loop each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.lr_scheduler import CyclicLR

from bench.harness.workloads import Gradients, Tensors, Workload
from clr_native import FusedCyclicSGD

OURS = "clr_native"
TORCH: dict[str, dict[str, Any]] = {
    "loop": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
CONTENDERS = (OURS, *TORCH)

# What every row shares; momentum cycles between .9 and .8 against the learning rate.
WEIGHT_DECAY = 1e-4
STEP_SIZE_UP = 2000
BASE_MOMENTUM, MAX_MOMENTUM = 0.8, 0.9
VERIFIED_STEPS = 4
# Far above the error of torch's schedule in the first cycle, far below the change from one step to the next.
SCHEDULE_TOLERANCE = 1e-12
# torch adds up squares in float32: its norm of ResNet-50's gradients is 2e-5 off.
TORCH_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Contender:
    """An optimizer, and ``step``: the update and the schedule, as the last lines of a loop have them."""

    optimizer: torch.optim.Optimizer
    step: Callable[[], None]

    def momentum_buffers(self) -> list[torch.Tensor]:
        """In the order of the parameters; they exist after the first step."""
        return kept(self.optimizer, "momentum_buffer")


def kept(optimizer: torch.optim.Optimizer, name: str) -> list[torch.Tensor]:
    """An entry of the optimizer's state, in the order of the parameters."""
    return [optimizer.state[parameter][name] for group in optimizer.param_groups for parameter in group["params"]]


def bounds(groups: int) -> list[tuple[float, float]]:
    """(base_lr, max_lr) of each group: all different, as a user with many groups would have them."""
    scales = [1.0 + group / groups for group in range(groups)]
    return [(1e-4 * scale, 6e-4 * scale) for scale in scales]


def ours(tensors: Tensors, **arguments: Any) -> FusedCyclicSGD:
    """Our optimizer with what every row shares, and what else a row is about."""
    limits = bounds(tensors.workload.groups)
    groups: list[dict[str, Any]] = [
        {"params": params, "base_lr": base_lr, "max_lr": max_lr}
        for params, (base_lr, max_lr) in zip(tensors.groups(), limits, strict=True)
    ]
    return FusedCyclicSGD(
        groups,
        step_size_up=STEP_SIZE_UP,
        base_momentum=BASE_MOMENTUM,
        max_momentum=MAX_MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        **arguments,
    )


def build_ours(tensors: Tensors, **arguments: Any) -> Contender:
    optimizer = ours(tensors, **arguments)

    def step() -> None:
        optimizer.step()

    return Contender(optimizer, step)


def torch_pair(kind: str, tensors: Tensors, weight_decay: float = WEIGHT_DECAY) -> tuple[torch.optim.SGD, CyclicLR]:
    optimizer = torch.optim.SGD(**sgd_arguments(tensors, weight_decay), **TORCH[kind])
    return optimizer, cyclic_lr(optimizer, tensors)


def sgd_arguments(tensors: Tensors, weight_decay: float = WEIGHT_DECAY) -> dict[str, Any]:
    """Of torch's SGD, and of those that took over its arguments."""
    groups = [{"params": params} for params in tensors.groups()]
    first_lr = bounds(tensors.workload.groups)[0][0]
    return {"params": groups, "lr": first_lr, "momentum": MAX_MOMENTUM, "weight_decay": weight_decay}


def cyclic_lr(optimizer: torch.optim.Optimizer, tensors: Tensors) -> CyclicLR:
    limits = bounds(tensors.workload.groups)
    base_lrs, max_lrs = ([float(limit[at]) for limit in limits] for at in (0, 1))
    return CyclicLR(
        optimizer,
        base_lrs,
        max_lrs,
        step_size_up=STEP_SIZE_UP,
        base_momentum=BASE_MOMENTUM,
        max_momentum=MAX_MOMENTUM,
    )


def build_torch(kind: str, tensors: Tensors) -> Contender:
    return pair_of(*torch_pair(kind, tensors))


def pair_of(optimizer: torch.optim.Optimizer, scheduler: CyclicLR) -> Contender:
    def step() -> None:
        optimizer.step()
        scheduler.step()

    return Contender(optimizer, step)


def build(name: str, tensors: Tensors) -> Contender:
    return build_ours(tensors) if name == OURS else build_torch(name, tensors)


def give_rates(contender: Contender, reference: Contender) -> None:
    """The reference takes the contender's lr and momentum; AssertionError where they are not torch's own."""
    groups = zip(contender.optimizer.param_groups, reference.optimizer.param_groups, strict=True)
    for group, expected in groups:
        for key in ("lr", "momentum"):
            found, wanted = group[key], expected[key]
            assert abs(found - wanted) <= SCHEDULE_TOLERANCE, f"{key}={found!r}, torch: {wanted!r}"
            expected[key] = found


def equal(what: str, results: Sequence[torch.Tensor], references: Sequence[torch.Tensor]) -> None:
    """AssertionError unless all are the same bit for bit."""
    for at, (result, wanted) in enumerate(zip(results, references, strict=True)):
        assert torch.equal(result, wanted), f"{what}: tensor {at} differs from torch's loop"


def nearly_equal(
    what: str,
    results: Sequence[torch.Tensor],
    references: Sequence[torch.Tensor],
    tolerance: float = TORCH_TOLERANCE,
) -> None:
    """AssertionError unless every tensor is within this share of its norm.

    For torch against torch: fused rounds the elements past the last full register otherwise than loop does.
    """
    for at, (result, wanted) in enumerate(zip(results, references, strict=True)):
        apart = torch.dist(result, wanted).item() / wanted.norm().item()
        assert apart <= tolerance, f"{what}: tensor {at} is {apart!r} of its norm away from the loop"


def verify(name: str, workload: Workload, gradients: Gradients | None = None) -> None:
    """AssertionError unless weights and buffers equal torch's loop bit for bit, lr and momentum given.

    The lr and momentum themselves are held against torch's own scheduler.
    """
    tensors = Tensors(workload, gradients)
    reference_tensors = Tensors(workload, tensors.gradients)
    contender, reference = build(name, tensors), build("loop", reference_tensors)
    for _ in range(VERIFIED_STEPS):
        give_rates(contender, reference)
        for stepped, turned in ((contender, tensors), (reference, reference_tensors)):
            turned.turn()
            stepped.step()
    what = f"{name}, {workload.name}"
    equal(f"{what}, weights", tensors.parameters, reference_tensors.parameters)
    equal(f"{what}, momentum", contender.momentum_buffers(), reference.momentum_buffers())
