"""The picture of a range test. matplotlib is imported here and nowhere else."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clr_native.range_test.bounds import NoAnswerError
from clr_native.range_test.curves import Curves
from clr_native.range_test.stopping import WINDOW, range_of
from clr_native.schedules.evaluate import FloatArray

MARKERS = {
    "valley": ("v", "inside the longest descent"),
    "steep": ("s", "the steepest fall"),
    "slide": (">", "before the slope changes"),
    "minimum": ("o", "a tenth of the lowest point's"),
}
# The axis ends this share of the descent above the loss before it. A higher loss has diverged.
ABOVE_START = 0.35
BELOW_BEST = 0.08


def figure_of(result: Curves) -> Figure:
    """Draws into a new figure, which no window shows."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    draw(result, figure.add_subplot())
    return figure


def draw(result: Curves, ax: Axes | None) -> Axes:
    """Draws loss and smoothed loss, or the metric, over lr. Marks suggestions and bounds."""
    if ax is None:
        ax = Figure(figsize=(8, 5), layout="constrained").add_subplot()
    of_metric = result.metric is not None
    raw = next(curve for curve in (result.metric, result.val_loss, result.loss) if curve is not None)
    smoothed = result.smoothed_metric if result.smoothed_metric is not None else result.smoothed_loss
    taken = ~np.isnan(raw)
    name = "metric" if of_metric else "loss" if result.val_loss is None else "validation loss"
    ax.plot(result.lr[taken], raw[taken], color="0.7", linewidth=1, label=name)
    ax.plot(result.lr, smoothed, color="#14375e", linewidth=2, label=f"smoothed {name}")
    if len(result.lr) and result.lr[0] > 0.0 and result.lr[-1] > 10.0 * result.lr[0]:
        ax.set_xscale("log")
    ax.set(xlabel="learning rate", ylabel=name, title="learning rate range test")
    if taken.sum() >= WINDOW:
        low, high = _heights(-raw[taken] if of_metric else raw[taken])
        if low < high:  # unless all losses are 0
            ax.set_ylim((-high, -low) if of_metric else (low, high))
    _mark_suggestions(result, ax, smoothed)
    _mark_bounds(result, ax)
    ax.legend(fontsize="small", frameon=False)
    return ax


def _heights(losses: FloatArray) -> tuple[float, float]:
    """Returns the ends of the axis. A loss that diverges must not press the descent flat."""
    levels = np.median(np.lib.stride_tricks.sliding_window_view(losses, WINDOW), axis=1)
    start, best = float(levels[0]), float(levels.min())
    span = range_of(start, best, float(np.median(np.abs(np.diff(losses)))))
    return float(losses.min()) - BELOW_BEST * span, start + ABOVE_START * span


def _mark_suggestions(result: Curves, ax: Axes, smoothed: FloatArray) -> None:
    for method, (marker, meaning) in MARKERS.items():
        try:
            rate = result.suggest(method)
        except ValueError:  # too few points for this rule
            continue
        low, high = sorted(ax.get_ylim())
        height = min(max(float(np.interp(rate, result.lr, smoothed)), low), high)  # at the edge if the point is outside
        label = f"{method} {rate:.2e} ({meaning})"
        ax.plot(rate, height, marker, color="#c1440e", label=label, clip_on=False)


def _mark_bounds(result: Curves, ax: Axes) -> None:
    try:
        bounds = result.bounds()
    except NoAnswerError as reason:
        words = textwrap.fill(str(reason), 90)
        box = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none"}
        ax.text(0.5, 0.97, words, transform=ax.transAxes, ha="center", va="top", fontsize="small", bbox=box)
        return
    ax.axvspan(bounds.base_lr, bounds.max_lr, color="#7db1e3", alpha=0.25, zorder=0)
    label = f"bounds {bounds.base_lr:.2e} to {bounds.max_lr:.2e}"
    ax.axvline(bounds.base_lr, color="#7db1e3", label=label)
    ax.axvline(bounds.max_lr, color="#7db1e3")
