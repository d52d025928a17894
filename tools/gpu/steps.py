"""Some steps on a GPU, for tools that look at kernels: ``python -m tools.gpu.steps kernels|clipped|replay``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch
from bench.cuda import why_not
from torch import Tensor

from clr_native import FusedCyclicSGD

LARGE = 1 << 25  # elements: 64 MB in 16 bits, more than a cache holds
REPLAYS = 1000
MIXED = ((40, 30), (65,), (7,), (40_000,), (3, 5, 7))


def optimizer(shapes: Sequence[tuple[int, ...]], device: str, dtype: torch.dtype, **settings: Any) -> FusedCyclicSGD:
    """With gradients that stay; the same numbers on each device."""
    generator = torch.Generator().manual_seed(0)
    over: list[Tensor] = []
    for shape in shapes:
        values, gradient = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(2))
        over.append(torch.nn.Parameter(values))
        over[-1].grad = gradient
    return FusedCyclicSGD(over, 0.01, 0.1, step_size_up=7, **settings)


def weights(of: FusedCyclicSGD) -> list[Tensor]:
    return [each.detach().cpu() for group in of.param_groups for each in group["params"]]


def same(there: FusedCyclicSGD, here: FusedCyclicSGD) -> bool:
    """Whether weights on the GPU have the bits of those on the CPU."""
    return all(torch.equal(a, b) for a, b in zip(weights(there), weights(here), strict=True))


def kernels() -> None:
    """Two steps of each kind; the first makes the state."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for settings in ({}, {"max_grad_norm": 1.0}):
            stepped = optimizer([(LARGE,)], "cuda", dtype, **settings)
            stepped.step()
            stepped.step()
    small = optimizer([(64,)] * 1000, "cuda", torch.float32)
    small.step()
    small.step()
    torch.cuda.synchronize()


def clipped() -> None:
    there, here = (optimizer(MIXED * 4, kind, torch.float32, max_grad_norm=1.0) for kind in ("cuda", "cpu"))
    there.step()
    here.step()
    if not same(there, here):
        sys.exit("a clipped step gives other bits than on the CPU")
    print("* a clipped step of 20 tensors has the bits of the CPU")


def replay() -> None:
    """The graph follows the cycle: beside as many ordinary steps on the CPU."""
    there, here = (optimizer(MIXED, kind, torch.float32) for kind in ("cuda", "cpu"))
    there.step()
    there.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        there.step()
    torch.cuda.synchronize()
    begun = perf_counter()
    for _ in range(REPLAYS):
        graph.replay()
    torch.cuda.synchronize()
    each = (perf_counter() - begun) / REPLAYS
    for _ in range(2 + REPLAYS):
        here.step()
    if there.applied_steps != here.applied_steps or there.get_last_lr() != here.get_last_lr():
        sys.exit(f"after replays there are {there.applied_steps} steps at {there.get_last_lr()}, not as on the CPU")
    if not same(there, here):
        sys.exit("replays give other bits than steps on the CPU")
    print(f"* {REPLAYS} replays of a step have the bits of the CPU, and took {each * 1e6:.1f} us each")


if __name__ == "__main__":
    if why := why_not():
        sys.exit(why)
    asked: dict[str, Callable[[], None]] = {"kernels": kernels, "clipped": clipped, "replay": replay}
    asked[sys.argv[1]]()
