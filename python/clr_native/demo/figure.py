"""The demo's picture: learning rate, momentum, loss and accuracy over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clr_native.demo.training import EPOCHS_PER_CYCLE, Run

# The second run is drawn over the first, thin and dashed, so both are seen where they agree.
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#7db1e3", "linewidth": 4.5, "markersize": 9, "solid_capstyle": "round"},
    {"color": "#14375e", "linewidth": 1.4, "markersize": 3.5, "linestyle": (0, (5, 3))},
)


def save(path: Path, title: str, runs: Sequence[Run]) -> None:
    """Write the picture of one run, or of two over each other, as PNG."""
    figure = Figure(figsize=(10, 9.5), layout="constrained")
    rate, momentum, loss, accuracy = figure.subplots(4, sharex=True, height_ratios=(3, 2, 3, 3))
    for run, style in zip(runs, STYLES, strict=False):
        length, total = run.steps_per_epoch, len(run.loss)
        rate.plot(run.lr, label=run.library, **style)
        momentum.plot(run.momentum, **style)
        # A mean stands in the middle of its epoch, an accuracy where it was measured.
        middles = [start + length / 2 for start in range(0, total, length)]
        loss.plot(middles, run.epoch_loss, marker="o", **style)
        percent = [100 * share for share in run.test_accuracy]
        accuracy.plot(range(length, total + 1, length), percent, marker="o", **style)
    loss.plot(runs[0].loss, color="0.72", linewidth=0.7, zorder=1)
    rate.set_ylabel("learning rate")
    momentum.set_ylabel("momentum")
    loss.set(ylabel="training loss\n(grey: each step)", yscale="log")
    accuracy.set(ylabel="test accuracy (%)", xlabel="optimizer steps (every second cycle is shaded)")
    for axes in figure.axes:
        _decorate(axes, runs[0])
    figure.align_ylabels()
    figure.suptitle(title, x=0.01, horizontalalignment="left", fontweight="bold")
    figure.legend(loc="outside upper right", ncols=len(runs), frameon=False)
    figure.savefig(path, format="png", dpi=150)


def _decorate(axes: Axes, run: Run) -> None:
    """Draws a quiet frame, and shades every second cycle."""
    cycle = EPOCHS_PER_CYCLE * run.steps_per_epoch
    for start in range(cycle, len(run.loss), 2 * cycle):
        axes.axvspan(start, min(start + cycle, len(run.loss)), color="0.95", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.88", linewidth=0.8)
    axes.margins(x=0.01, y=0.08)
