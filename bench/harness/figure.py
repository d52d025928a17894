"""The figure: a line a workload, a mark a contender, the time of one step from left to right."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.harness.contenders import OURS, TORCH
from bench.harness.rows import AGAINST_BEST, Row
from bench.harness.tables import UNITS, digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours for every eye (Okabe and Ito); the marks differ in shape as well. Drawn in this order, ours on top.
MARKS = {
    "floor": ("|", "#000000"),
    "loop": ("s", "#999999"),
    "foreach": ("^", "#E69F00"),
    "fused": ("D", "#0072B2"),
    OURS: ("o", "#D55E00"),
}
LABELS = {name: f"torch {name} + CyclicLR" for name in TORCH} | {OURS: OURS, "floor": "bare loop (floor)"}
GREY, BLACK = "#666666", "#000000"


def time_label(seconds: float, _position: object = None) -> str:
    """A decade of the axis in its unit; a hair below one counts as one."""
    scale, unit = next((unit for unit in UNITS if seconds >= unit[0] * 0.999), UNITS[-1])
    return f"{seconds / scale:g} {unit}".replace("us", "\N{MICRO SIGN}s")


def draw(rows: Sequence[Row], caption: str, path: Path) -> None:
    """A panel for each thread count; at its right edge, how many times faster ours is than torch's best."""
    from matplotlib.figure import Figure

    steps = [row for row in rows if row.section == "step"]
    threads = sorted({row.threads for row in steps})
    works = list(dict.fromkeys(row.work for row in steps))
    if not works:
        raise ValueError(f"no steps to draw: sections={sorted({row.section for row in rows})}")
    figure = Figure(figsize=(2.2 + 5.2 * len(threads), 1.7 + 0.55 * len(works)), layout="constrained")
    axes = figure.subplots(1, len(threads), squeeze=False, sharex=True, sharey=True)[0]
    for axis, count in zip(axes, threads, strict=True):
        draw_panel(axis, {works.index(row.work): row for row in steps if row.threads == count})
        axis.set_title(f"{count} thread{'s' * (count > 1)}", fontsize=11)
    axes[0].set_yticks(range(len(works)), [work.replace(": ", "\n") for work in works], fontsize=8)
    axes[0].set_ylim(len(works) - 0.4, -0.6)
    handles, labels = axes[0].get_legend_handles_labels()
    columns = len(labels) if len(threads) > 1 else 3
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=9)
    under = textwrap.fill(f"Time of one optimizer step with its schedule. {caption}", 95 * len(threads))
    figure.supxlabel(under, fontsize=7.5, color=GREY)
    figure.savefig(path, dpi=150)


def draw_panel(axis: Axes, rows: dict[int, Row]) -> None:
    """``rows`` by the line they stand on."""
    for line, row in rows.items():
        medians = [spread.median for name, spread in row.seconds.items() if name in MARKS]
        axis.plot([min(medians), max(medians)], [line, line], color="#DDDDDD", linewidth=2, zorder=1)
        if AGAINST_BEST in row.ratios:
            ratio = row.ratios[AGAINST_BEST].median
            colour = MARKS[OURS][1] if ratio >= 1 else BLACK
            edge_text(axis, f"{digits(ratio)}\N{MULTIPLICATION SIGN}", line, colour)
    for name, (marker, colour) in MARKS.items():
        points = [(row.seconds[name].median, line) for line, row in rows.items() if name in row.seconds]
        if points:
            size = 15 if marker == "|" else 8
            axis.plot(
                *zip(*points, strict=True),
                marker,
                color=colour,
                label=LABELS[name],
                markersize=size,
                zorder=3,
            )
    edge_text(axis, "torch's best\n/ ours", -0.6, GREY)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(time_label)
    axis.grid(axis="x", color="#EEEEEE")
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)


def edge_text(axis: Axes, text: str, line: float, colour: str) -> None:
    """Right of the panel, at the height of ``line``."""
    axis.annotate(
        text,
        (1.0, line),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8 if colour == GREY else 10,
        weight="normal" if colour == GREY else "bold",
        color=colour,
    )
