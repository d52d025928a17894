"""A result in a few lines, for terminals and notebooks."""

from __future__ import annotations

import base64
import html
import io

import numpy as np

from clr_native.range_test.bounds import NoAnswerError
from clr_native.range_test.curves import Curves


def summary(result: Curves) -> str:
    """Tells what was run, what was measured, the bounds or why there are none, and why the test ended."""
    steps, repetitions = len(result.lr), len(result.losses)
    title = f"LR range test: {steps} step{'s' * (steps != 1)}"
    title += f", lr {result.lr[0]:.3g} to {result.lr[-1]:.3g}" if steps else ""
    lines = [title + f", {repetitions} times" * (repetitions > 1)]
    if steps:
        lines.append(_measured(result))
    try:
        bounds = result.bounds()
    except NoAnswerError as reason:
        lines.append(str(reason))
    else:
        lines.append(f"bounds: base_lr={bounds.base_lr:.3g}, max_lr={bounds.max_lr:.3g}")
        if bounds.base_lr_interval and bounds.max_lr_interval:
            (low, high), (lowest, highest) = bounds.base_lr_interval, bounds.max_lr_interval
            lines.append(
                f"of single repetitions: base_lr {low:.3g} to {high:.3g}, max_lr {lowest:.3g} to {highest:.3g}"
            )
    return "\n".join([*lines, f"stopped at {result.stopped}"])


def _measured(result: Curves) -> str:
    """Describes the curve that the bounds are read from by three of its values."""
    name, values, best = "loss", result.loss, np.nanargmin
    if result.val_loss is not None:
        name, values = "validation loss", result.val_loss
    if result.metric is not None:
        name, values, best = "metric", result.metric, np.nanargmax
    taken = values[~np.isnan(values)]
    if not len(taken):
        return f"{name} was never taken"
    at = int(best(values))
    return f"{name}: {taken[0]:.4g} at first, best {values[at]:.4g} at lr {result.lr[at]:.3g}, {taken[-1]:.4g} at last"


def as_html(result: Curves) -> str:
    """Returns the lines, and the picture if there is something to draw and matplotlib is installed."""
    lines = f"<pre>{html.escape(summary(result))}</pre>"
    if not len(result.lr):
        return lines
    try:
        from clr_native.range_test.plot import figure_of
    except ImportError:
        return lines
    file = io.BytesIO()
    figure_of(result).savefig(file, format="png", dpi=96)
    picture = base64.b64encode(file.getvalue()).decode()
    return f'{lines}<img alt="loss over learning rate" src="data:image/png;base64,{picture}">'
