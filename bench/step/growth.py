"""How costs grow with the number of parameters and of groups, beside torch's: ``python -m bench.step.growth``."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CyclicLR

from bench.harness import machine, tables
from bench.harness.rounds import Spread, seconds
from clr_native import FusedCyclicSGD

COUNTS = (10_000, 100_000)
GROUPS = (2_000, 20_000)
SIZE, REPEATS, STEPS = 8, 3, 5
BOUNDS: dict[str, Any] = {"base_lr": 1e-4, "max_lr": 6e-4}


def both(optimizer: torch.optim.Optimizer, scheduler: CyclicLR | None) -> None:
    optimizer.step()
    if scheduler is not None:
        scheduler.step()


def ours(groups: list[dict[str, Any]]) -> Callable[[], Any]:
    return lambda: (FusedCyclicSGD(groups, **BOUNDS), None)


def torchs(groups: list[dict[str, Any]]) -> Callable[[], Any]:
    def make() -> tuple[torch.optim.SGD, CyclicLR]:
        sgd = torch.optim.SGD(groups, lr=1e-4, momentum=0.9, fused=True)
        return sgd, CyclicLR(sgd, **BOUNDS)

    return make


def costs(
    maker: Callable[[list[dict[str, Any]]], Callable[[], Any]], count: int, a_group_each: bool, repeats: int
) -> dict[str, float]:
    """Seconds of each: the median of some new optimizers, and of some steps of each."""
    samples: dict[str, list[float]] = {"construction": [], "first step": [], "step": [], "state_dict": []}
    for _ in range(repeats):
        parameters = [nn.Parameter(torch.ones(SIZE)) for _ in range(count)]
        for parameter in parameters:
            parameter.grad = torch.ones(SIZE)
        groups = [{"params": [each]} for each in parameters] if a_group_each else [{"params": parameters}]
        made: list[Any] = []
        gc.collect()
        gc.freeze()
        samples["construction"].append(
            seconds(partial(lambda made, groups: made.append(maker(groups)()), made, groups))
        )
        optimizer, scheduler = made.pop()
        step = partial(both, optimizer, scheduler)
        samples["first step"].append(seconds(step))
        samples["step"].append(median(seconds(step) for _ in range(STEPS)))
        samples["state_dict"].append(seconds(optimizer.state_dict))
        gc.unfreeze()
    return {name: median(each) for name, each in samples.items()}


def rows(counts: Sequence[int], a_group_each: bool, repeats: int) -> list[list[str]]:
    """A row a cost: ours and torch's at both counts, and how many times more the larger takes."""
    few, many = counts
    found = {
        name: [costs(maker, count, a_group_each, repeats) for count in counts]
        for name, maker in (("ours", ours), ("torch", torchs))
    }
    table = []
    for cost in found["ours"][0]:
        row = [f"{few} and {many} {'groups' if a_group_each else 'parameters'}: {cost}"]
        for name in found:
            less, more = (each[cost] for each in found[name])
            row += [tables.time_text(Spread(t, t, t)).split(" [")[0] for t in (less, more)] + [
                tables.digits(more / less)
            ]
        table.append(row)
    return table


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.step.growth", description=__doc__)
    parser.add_argument("--counts", nargs=2, type=int, default=COUNTS, help=f"of parameters; default: {COUNTS}")
    parser.add_argument("--groups", nargs=2, type=int, default=GROUPS, help=f"default: {GROUPS}")
    parser.add_argument(
        "--repeats", type=int, default=REPEATS, help=f"new optimizers for each figure; default: {REPEATS}"
    )
    options = parser.parse_args(argv)
    found = machine.describe() | machine.load()
    torch.set_num_threads(1)
    for maker in (ours, torchs):  # the first optimizer of a process has torch import more of itself
        maker([{"params": [nn.Parameter(torch.ones(SIZE))]}])()
    header = ["cost", "ours, few", "ours, many", "times", "torch's, few", "torch's, many", "times"]
    print(
        tables.table(
            header, [*rows(options.counts, False, options.repeats), *rows(options.groups, True, options.repeats)]
        )
    )
    print(f"\nMedians, one thread, fused=True for torch.\n\n{machine.caption(found)}")


if __name__ == "__main__":
    main()
