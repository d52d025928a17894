"""Are the snapshots of one run, one a cycle, better together than alone? On the demo's MNIST digits and network.

    python -m bench.snapshots.ensemble [--seeds 5] [--cycles 5] [--epochs 6] [--markdown FILE]

Snapshot ensembles (Huang et al. 2017, arXiv:1704.00109): the rate jumps up and anneals to nothing, cycle after cycle;
the network at the end of each cycle is kept, and their softmax outputs are averaged. Beside it one long cycle of as
many epochs, which is what the same time trains otherwise.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from bench.harness.machine import caption, describe
from clr_native import CyclicSchedule, FusedCyclicSGD
from clr_native.demo.data import Digits, load
from clr_native.demo.network import convolutional_network
from clr_native.demo.training import BATCH_SIZE, steps_per_epoch

MAX_LR, MOMENTUM, WEIGHT_DECAY = 0.05, 0.9, 1e-3


def annealed(steps: int) -> CyclicSchedule:
    """Half a cosine down from the peak, which one step climbs."""
    return CyclicSchedule(0.0, MAX_LR, step_size_up=1, step_size_down=steps - 1, window="hann", cycle_momentum=False)


def snapshots(digits: Digits, cycles: int, epochs: int, seed: int) -> list[nn.Module]:
    """One run of ``cycles`` cycles of so many epochs: the network at the end of each."""
    torch.manual_seed(seed)
    network = convolutional_network(digits.side)
    optimizer = FusedCyclicSGD(
        network.parameters(),
        schedule=annealed(epochs * steps_per_epoch(digits)),
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        nesterov=True,
    )
    taken: list[nn.Module] = []
    optimizer.register_cycle_end_hook(lambda _: taken.append(copy.deepcopy(network)))
    for _ in range(cycles * epochs):
        for images, labels in digits.batches(BATCH_SIZE):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]  # untyped
            optimizer.step()
    return taken


@torch.no_grad()
def probabilities(network: nn.Module, digits: Digits) -> Tensor:
    """[images, 10]"""
    outputs: Tensor = network(digits.test_images)
    return outputs.softmax(dim=1)


def accuracy(shares: Tensor, digits: Digits) -> float:
    return float((shares.argmax(dim=1) == digits.test_labels).double().mean())


def rows(digits: Digits, seeds: int, cycles: int, epochs: int) -> Iterator[str]:
    numbered = [f"snapshot {i + 1}" for i in range(cycles)]
    yield f"| seed | {' | '.join(numbered)} | **ensemble** | one cycle of {cycles * epochs} epochs |"
    yield "|---|" + "---|" * (cycles + 2)
    table = []
    for seed in range(seeds):
        shares = [probabilities(network, digits) for network in snapshots(digits, cycles, epochs, seed)]
        together = torch.stack(shares).mean(dim=0)
        (long,) = snapshots(digits, 1, cycles * epochs, seed)
        table.append([accuracy(each, digits) for each in (*shares, together, probabilities(long, digits))])
        yield f"| {seed} | " + " | ".join(f"{share:.1%}" for share in table[-1]) + " |"
    yield "| mean | " + " | ".join(f"{fmean(column):.2%}" for column in zip(*table, strict=True)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cycles", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6, help="of each cycle")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for line in rows(load("mnist"), arguments.seeds, arguments.cycles, arguments.epochs):
        print(line, flush=True)
        lines.append(line)
    if arguments.markdown is not None:
        arguments.markdown.write_text("\n".join([*lines, "", caption(describe())]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
