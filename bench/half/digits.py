"""Do weights of 16 bits train as well as float32? On the demo's MNIST digits and network, several seeds.

    python -m bench.half.digits [--rates whole tenth fortieth] [--seeds 5] [--markdown FILE]

All but the first row keep weights, activations and gradients in bfloat16, from the same initial weights (float32's,
rounded) and batches. The rates are the demo's, whose updates are far above what bfloat16 can tell apart, and parts of
them, where more and more updates are below half a unit in a weight's last place: rounded to nearest they are lost.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from bench.harness.machine import caption, describe
from clr_native import FusedCyclicSGD
from clr_native.demo.contenders import (
    BASE_MOMENTUM,
    CLR_NATIVE,
    MAX_MOMENTUM,
    MODE,
    NESTEROV,
    TUNED,
    WEIGHT_DECAY,
    Bounds,
    Contender,
    Lines,
)
from clr_native.demo.data import Digits, load
from clr_native.demo.training import train

# The share of the demo's rates, and epochs: smaller steps, more of them.
RATES = {"whole": (1.0, 8), "tenth": (0.1, 16), "fortieth": (0.025, 16)}
SETTINGS: dict[str, dict[str, Any]] = {
    "bfloat16": {},
    'rounding="stochastic"': {"rounding": "stochastic"},
    "kahan=True": {"kahan": True},
    'momentum_dtype="float32"': {"momentum_dtype": "float32"},
    'both: "stochastic", "float32"': {"rounding": "stochastic", "momentum_dtype": "float32"},
    'both: kahan, "float32"': {"kahan": True, "momentum_dtype": "float32"},
    "master_weights=True": {"master_weights": True},
}


def contender(settings: dict[str, Any]) -> Contender:
    """The demo's optimizer with these settings over parameters made bfloat16."""

    def lines(parameters: Iterable[nn.Parameter], step_size: int, bounds: Bounds) -> Lines:
        halves = list(parameters)
        for parameter in halves:
            parameter.data = parameter.detach().bfloat16()
        optimizer = FusedCyclicSGD(
            halves,
            bounds.base_lr,
            bounds.max_lr,
            step_size_up=step_size,
            mode=MODE,
            base_momentum=BASE_MOMENTUM,
            max_momentum=MAX_MOMENTUM,
            weight_decay=WEIGHT_DECAY,
            nesterov=NESTEROV,
            **settings,
        )
        return optimizer, optimizer.step

    return Contender("clr_native", "FusedCyclicSGD.step()", lines)


def of_16_bits(digits: Digits) -> Digits:
    return dataclasses.replace(
        digits, train_images=digits.train_images.bfloat16(), test_images=digits.test_images.bfloat16()
    )


def accuracies(digits: Digits, who: Contender, epochs: int, seeds: int, bounds: Bounds) -> list[float]:
    """On the test images at the end, one for each seed."""

    def one(seed: int) -> float:
        run = train(digits, who, epochs, seed, bounds, on_step=lambda run: None, on_epoch=lambda run: None)
        return run.test_accuracy[-1]

    return [one(seed) for seed in range(seeds)]


def row(name: str, shares: list[float], wide: list[float]) -> str:
    """Median and range of the accuracies, and how far they are above float32's of the same seed, in points."""
    points = 100.0 * median(a - b for a, b in zip(shares, wide, strict=True))
    cells = f"{median(shares):.1%} | {min(shares):.1%} to {max(shares):.1%}"
    difference = 100.0 * (median(shares) - median(wide))
    return f"| {name} | {cells} | {difference:+.1f} | {points:+.1f} |"


def rows(digits: Digits, epochs: int, seeds: int, bounds: Bounds) -> Iterator[str]:
    yield "| weights | median accuracy | range | median less float32's | median difference of a seed |"
    yield "|---|---|---|---|---|"
    wide = accuracies(digits, CLR_NATIVE, epochs, seeds, bounds)
    yield row("float32", wide, wide)
    halves = of_16_bits(digits)
    for name, settings in SETTINGS.items():
        yield row(name, accuracies(halves, contender(settings), epochs, seeds, bounds), wide)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rates", nargs="+", choices=RATES, default=tuple(RATES), help="of the demo's")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    digits = load("mnist")
    text = ""
    for share, epochs in (RATES[name] for name in arguments.rates):
        bounds = Bounds(share * TUNED.base_lr, share * TUNED.max_lr)
        lines = [f"{bounds.base_lr:g} to {bounds.max_lr:g}, {epochs} epochs, {arguments.seeds} seeds:", ""]
        print(lines[0], flush=True)
        for line in rows(digits, epochs, arguments.seeds, bounds):
            print(line, flush=True)
            lines.append(line)
        text += "\n".join([*lines, "", ""])
    if arguments.markdown is not None:
        arguments.markdown.write_text(text + caption(describe()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
