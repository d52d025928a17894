"""The picture of a range test. matplotlib is imported here and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clr_native.range_test.bounds import NoAnswerError

if TYPE_CHECKING:
    from clr_native.range_test.result import RangeTestResult

MARKERS = {"valley": "v", "steep": "s", "slide": ">", "minimum": "o"}


def draw(result: RangeTestResult, ax: Axes | None) -> Axes:
    """Loss and smoothed loss, or the metric, over lr; suggestions and bounds marked."""
    if ax is None:
        ax = Figure(figsize=(8, 5), layout="constrained").add_subplot()
    of_metric = result.metric is not None
    raw = next(curve for curve in (result.metric, result.val_loss, result.loss) if curve is not None)
    smoothed = result.smoothed_metric if result.smoothed_metric is not None else result.smoothed_loss
    taken = ~np.isnan(raw)
    name = "metric" if of_metric else "loss" if result.val_loss is None else "validation loss"
    ax.plot(result.lr[taken], raw[taken], color="0.7", linewidth=1, label=name)
    ax.plot(result.lr, smoothed, color="#14375e", linewidth=2, label=f"smoothed {name}")
    _mark_suggestions(result, ax, smoothed)
    _mark_bounds(result, ax)
    if result.lr[0] > 0.0 and result.lr[-1] > 10.0 * result.lr[0]:
        ax.set_xscale("log")
    ax.set(xlabel="learning rate", ylabel=name, title=f"stopped at {result.stopped}")
    ax.title.set_fontsize("small")
    ax.legend(fontsize="small", frameon=False)
    return ax


def _mark_suggestions(
    result: RangeTestResult, ax: Axes, smoothed: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> None:
    for method, marker in MARKERS.items():
        try:
            rate = result.suggest(method)
        except ValueError:  # too few points for this rule
            continue
        height = np.interp(rate, result.lr, smoothed)
        ax.plot(rate, height, marker, color="#c1440e", label=f"{method} {rate:.2e}")


def _mark_bounds(result: RangeTestResult, ax: Axes) -> None:
    try:
        bounds = result.bounds()
    except NoAnswerError as reason:
        ax.text(0.02, 0.02, str(reason), transform=ax.transAxes, fontsize="x-small", wrap=True)
        return
    ax.axvspan(bounds.base_lr, bounds.max_lr, color="#7db1e3", alpha=0.25, zorder=0)
    label = f"bounds {bounds.base_lr:.2e} to {bounds.max_lr:.2e}"
    ax.axvline(bounds.base_lr, color="#7db1e3", label=label)
    ax.axvline(bounds.max_lr, color="#7db1e3")
