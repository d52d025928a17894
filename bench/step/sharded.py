"""The step over the shards of FSDP2 beside torch's clip, SGD and CyclicLR: ``python -m bench.step.sharded``.

Two processes over gloo on one machine. Their gradients stay, so forward and backward play no part.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from unittest import mock

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import CyclicLR

from bench.harness import machine
from clr_native import FusedCyclicSGD

PROCESSES, LAYERS, ROUNDS = 2, 500, 15
WIDTHS = (64, 16)  # of square matrices and their biases: the larger ones are bound by memory
BOUNDS: dict[str, Any] = {"base_lr": 1e-4, "max_lr": 6e-4}
LARGEST_NORM = 1.0


def model(width: int) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(LAYERS)))
    fully_shard(layers)
    torch.autograd.backward(layers(torch.randn(8, width)).sum())
    return layers


def torchs(network: nn.Module, rules: bool) -> Callable[[], None]:
    parameters = list(network.parameters())
    sgd = torch.optim.SGD(parameters, lr=BOUNDS["base_lr"], momentum=0.9)  # fused=True raises
    scheduler = CyclicLR(sgd, **BOUNDS)
    kept = [p.grad.clone() for p in parameters if p.grad is not None]

    def step() -> None:
        if rules:
            nn.utils.clip_grad_norm_(parameters, LARGEST_NORM)
        sgd.step()
        scheduler.step()

    def with_own_gradients() -> None:
        for p, g in zip(parameters, kept, strict=True):
            p.grad = g.clone() if rules else g  # clipping writes into it
        global begun
        begun = time.perf_counter()
        step()

    return with_own_gradients


begun = 0.0


def ours(network: nn.Module, rules: bool) -> Callable[[], None]:
    optimizer = FusedCyclicSGD(network.parameters(), **BOUNDS, max_grad_norm=LARGEST_NORM if rules else None)

    def step() -> None:
        global begun
        begun = time.perf_counter()
        optimizer.step()

    return step


def seconds(step: Callable[[], None]) -> float:
    distributed.barrier()
    step()
    return time.perf_counter() - begun


class Waiting:
    """An all-reduce that adds up what it takes."""

    def __init__(self) -> None:
        self.total, self.reduce = 0.0, distributed.all_reduce

    def __call__(self, *arguments: Any, **options: Any) -> None:
        start = time.perf_counter()
        self.reduce(*arguments, **options)
        self.total += time.perf_counter() - start


def measure(width: int, rules: bool) -> dict[str, Any]:
    networks = [model(width), model(width)]
    steps = {"ours": ours(networks[0], rules), "torch": torchs(networks[1], rules)}
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(ROUNDS + 2):
        for name, step in steps.items():
            taken = seconds(step)
            if number >= 2:
                samples[name].append(taken)
    difference = max(
        (local(p) - local(q)).abs().max().item() if local(p).numel() else 0.0
        for p, q in zip(networks[0].parameters(), networks[1].parameters(), strict=True)
    )
    waiting = Waiting()
    with mock.patch.object(distributed, "all_reduce", waiting):
        shares = []
        for _ in range(ROUNDS):
            waiting.total = 0.0
            shares.append((waiting.total, seconds(steps["ours"]))[1])
            shares[-1] = waiting.total / shares[-1]
    return {"samples": samples, "share": median(shares), "difference": difference}


def local(tensor: Tensor) -> Tensor:
    assert isinstance(tensor, DTensor)
    return tensor.to_local().detach()


def work(rank: int, store: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES)
    for width in WIDTHS:
        for rules, what in ((True, "clip + SGD + CyclicLR"), (False, "SGD + CyclicLR")):
            found = measure(width, rules)
            if rank == 0:
                report(f"{width} wide, {what}", found)
    distributed.barrier()
    os._exit(0)  # gloo's threads sometimes end in std::terminate when a group is taken down while its peer leaves


def report(what: str, found: dict[str, Any]) -> None:
    print(f"{2 * LAYERS} DTensors, {PROCESSES} processes, {what}:")
    medians = {}
    for name, values in found["samples"].items():
        low, medians[name], high = (1e3 * value for value in quantiles(values))
        print(f"  {name:5} {medians[name]:8.3f} ms (quartiles {low:.3f}, {high:.3f})")
    print(f"  torch / ours {medians['torch'] / medians['ours']:.1f}; all-reduce {found['share']:.0%} of ours")
    print(f"  largest difference of any weight {found['difference']:.1e}", flush=True)


def main() -> None:
    print(machine.caption(machine.describe()))
    with tempfile.TemporaryDirectory() as folder:
        context, store = multiprocessing.get_context("spawn"), (Path(folder) / "store").as_uri()
        processes = [context.Process(target=work, args=(rank, store)) for rank in range(PROCESSES)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()


if __name__ == "__main__":
    main()
