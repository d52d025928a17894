"""Do the bounds of a range test train as well as the best of a grid? On the demo's MNIST digits and network.

    python -m bench.range_test.digits [--seeds 5] [--epochs 8] [--markdown FILE]

The grid: four peaks, each with three ratios of peak to base. Every pair, and the bounds found by a range test for each
seed as `clr-native demo --bounds auto` does, train the same networks on the same batches.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import torch

from bench.harness.machine import caption, describe
from clr_native.demo.contenders import CLR_NATIVE, Bounds
from clr_native.demo.data import Digits, load
from clr_native.demo.find import found_bounds
from clr_native.demo.training import train

GRID = [Bounds(peak / ratio, peak) for peak in (0.01, 0.03, 0.1, 0.3) for ratio in (3, 10, 30)]


def accuracy(digits: Digits, epochs: int, seed: int, bounds: Bounds) -> float:
    run = train(digits, CLR_NATIVE, epochs, seed, bounds, on_step=lambda run: None, on_epoch=lambda run: None)
    return run.test_accuracy[-1]


def rows(digits: Digits, seeds: int, epochs: int) -> Iterator[str]:
    yield "| base_lr | max_lr | " + " | ".join(f"seed {seed}" for seed in range(seeds)) + " | mean |"
    yield "|---|---|" + "---|" * (seeds + 1)
    means = []
    for bounds in GRID:
        shares = [accuracy(digits, epochs, seed, bounds) for seed in range(seeds)]
        means.append(fmean(shares))
        cells = " | ".join(f"{share:.1%}" for share in shares)
        yield f"| {bounds.base_lr:.2g} | {bounds.max_lr:.2g} | {cells} | {means[-1]:.2%} |"
    found = [found_bounds(digits, seed, repeats=3)[0] for seed in range(seeds)]
    shares = [accuracy(digits, epochs, seed, bounds) for seed, bounds in enumerate(found)]
    pairs = [f"({bounds.base_lr:.2g} to {bounds.max_lr:.2g})" for bounds in found]
    cells = " | ".join(f"{share:.1%} {pair}" for share, pair in zip(shares, pairs, strict=True))
    yield f"| **found** | | {cells} | **{fmean(shares):.2%}** |"
    yield ""
    points = 100.0 * (fmean(shares) - max(means))
    yield f"The best pair of the grid has {max(means):.2%}, the bounds found {fmean(shares):.2%}: {points:+.2f} points."


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    digits = load("mnist")
    lines = []
    for line in rows(digits, arguments.seeds, arguments.epochs):
        print(line, flush=True)
        lines.append(line)
    lines += [
        "",
        f"{arguments.epochs} epochs, two cycles of triangular2 for each eight; test accuracy on 1,000 images.",
    ]
    text = "\n".join([*lines, "", caption(describe())]) + "\n"
    if arguments.markdown is not None:
        arguments.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
