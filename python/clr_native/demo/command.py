"""The demo from end to end."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from clr_native.demo import figure
from clr_native.demo.contenders import CLR_NATIVE, TORCH, TUNED
from clr_native.demo.data import load
from clr_native.demo.find import found_bounds
from clr_native.demo.report import monitor, print_results
from clr_native.demo.results import gather
from clr_native.demo.training import steps_per_epoch, train


def run(
    data: str, *, epochs: int, seed: int, threads: int | None, compare: bool, bounds: str, png: Path, json: Path | None
) -> None:
    """Train, compare, print and write the files. `clr_native.cli` has checked the arguments."""
    if threads is not None:
        torch.set_num_threads(threads)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    digits = load(data)
    steps = epochs * steps_per_epoch(digits)
    summary = f"{data}: {len(digits.train_labels)} training and {len(digits.test_labels)} test images"
    settings = f"epochs {epochs}, steps {steps}, seed {seed}, threads {torch.get_num_threads()}"
    console.print(f"{summary}; {settings}\n")

    rates = TUNED
    if bounds == "auto":
        rates, _ = found_bounds(digits, seed, repeats=3)
        console.print(f"LR range test: base_lr {rates.base_lr:.3g}, max_lr {rates.max_lr:.3g}\n")

    runs = []
    for contender in (CLR_NATIVE, TORCH) if compare else (CLR_NATIVE,):
        with monitor(console, f"{contender.library}: {contender.calls}", steps) as show:
            runs.append(train(digits, contender, epochs, seed, rates, on_step=show.step, on_epoch=show.epoch))

    results = gather(data, seed, runs)
    print_results(console, results)
    figure.save(png, summary, runs)
    console.print(f"wrote {png}: learning rate, momentum, loss and accuracy over the steps")
    if json is not None:
        json.write_text(results.to_json())
        console.print(f"wrote {json}: the results")
