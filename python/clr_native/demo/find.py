"""The LR range test on the demo's data and network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from clr_native import RangeTestResult, lr_range_test
from clr_native.demo.contenders import BASE_MOMENTUM, CLR_NATIVE, TUNED, Bounds
from clr_native.demo.data import Digits, load
from clr_native.demo.network import convolutional_network
from clr_native.demo.training import BATCH_SIZE
from clr_native.range_test.suggest import RULES

START_LR, END_LR, STEPS = 1e-4, 10.0, 300


@dataclass(frozen=True)
class Batches:
    """The training images as a loader: a new epoch each time it is started."""

    digits: Digits

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.digits.batches(BATCH_SIZE)


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Returns the share of a batch that is read right, which is the paper's curve."""
    return float((scores.argmax(dim=1) == labels).double().mean())


def range_test(digits: Digits, seed: int, repeats: int) -> RangeTestResult:
    """Tests a new network under the demo's optimizer, with the momentum of the largest rates of a cycle."""
    torch.manual_seed(seed)
    network = convolutional_network(digits.side)
    optimizer, _ = CLR_NATIVE.lines(network.parameters(), 1, TUNED)
    return lr_range_test(
        network,
        optimizer,
        functional.cross_entropy,
        Batches(digits),
        start_lr=START_LR,
        end_lr=END_LR,
        num_steps=STEPS,
        metric=accuracy,
        momentum=BASE_MOMENTUM,
        repeats=repeats,
    )


def found_bounds(digits: Digits, seed: int, repeats: int) -> tuple[Bounds, RangeTestResult]:
    """Returns Smith's pair for a network of this seed, and the test that it is read from."""
    result = range_test(digits, seed, repeats)
    bounds = result.bounds()
    return Bounds(bounds.base_lr, bounds.max_lr), result


def run(data: str, *, seed: int, threads: int | None, repeats: int, png: Path, json: Path | None) -> None:
    """Test, print and write the files. `clr_native.cli` has checked the arguments."""
    if threads is not None:
        torch.set_num_threads(threads)
    result = range_test(load(data), seed, repeats)
    print(f"{data}: {len(result.lr)} of {STEPS} steps, {repeats} times, seed {seed}; stopped at {result.stopped}\n")
    figure = Figure(figsize=(8, 5), layout="constrained")
    result.plot(figure.add_subplot())
    figure.savefig(png, format="png", dpi=150)
    print(f"wrote {png}: the loss over the rate, with suggestions and bounds")
    if json is not None:
        result.save(json)
        print(f"wrote {json}: the curves, for RangeTestResult.load")
    _print_table(result)


def _print_table(result: RangeTestResult) -> None:
    print(f"\n{'suggestion':10}  {'lr':>8}")
    for method in RULES:
        print(f"{method:10}  {result.suggest(method):8.2e}")
    bounds = result.bounds()
    print(f"\n{'bound':10}  {'lr':>8}  smallest and largest of the repetitions")
    for name, value, interval in (
        ("base_lr", bounds.base_lr, bounds.base_lr_interval),
        ("max_lr", bounds.max_lr, bounds.max_lr_interval),
    ):
        print(f"{name:10}  {value:8.2e}" + (f"  {interval[0]:.2e}, {interval[1]:.2e}" if interval else ""))
