"""Markdown tables of measured rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.harness.rounds import Spread
from bench.harness.rows import Row, Section

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
TITLES: dict[Section, str] = {
    "step": "one step with its schedule",
    "whole step": "the whole step",
    "lars": "one LARS step with its schedule",
    "bfloat16 momentum": "one step with its schedule, ours",
    "by hand": "one step with lr and momentum written before it",
    "scheduler": "one CyclicLR.step()",
    "schedule": "1e6 values of lr and of momentum: schedules x steps",
    "import": "imports",
}
KEY = "Medians [quartiles]; a ratio above 1 means ours is faster."
KEYS: dict[Section, str] = {
    "step": "Floor: a bare loop in C over the same memory, all else left out. Reading: every `p.grad` read and every "
    "version counter raised, no arithmetic.",
    "whole step": "Whole step: unscale, clip by norm, step, update of the scale, CyclicLR, exponential moving average. "
    "Floor: two bare loops in C, one for the norm.",
    "lars": "Loop: gradients rescaled one by one; foreach, fused: by foreach functions. Then SGD of that name.",
    "bfloat16 momentum": "Weights and gradients are float32.",
    "by hand": "All but the second write the rates of every group in Python, which is in their times.",
    "scheduler": "Own bounds: base_lr and max_lr are lists with other values for each group.",
    "schedule": "Cold: new arrays are new pages. Warm: they are memory freed before. The paired run steps torch's "
    "scheduler 100,000 times and multiplies by ten.",
    "import": "",
}


def digits(number: float) -> str:
    """Three significant digits, without an exponent."""
    decimals = next((place for place, least in enumerate((100, 10)) if number >= least), 2)
    return f"{number:.{decimals}f}"


def time_text(spread: Spread) -> str:
    """``12.3 ms [12.1, 12.6]``, in the largest unit in which the median is at least one."""
    scale, unit = next((unit for unit in UNITS if spread.median >= unit[0]), UNITS[-1])
    low, middle, high = (digits(value / scale) for value in (spread.low, spread.median, spread.high))
    return f"{middle} {unit} [{low}, {high}]"


def ratio_text(label: str, spread: Spread) -> str:
    """Where torch or numpy is faster it says so in words."""
    text = digits(spread.median)
    if spread.low < spread.high:
        text += f" [{digits(spread.low)}, {digits(spread.high)}]"
    rival = label.split()[0].removesuffix("'s")
    return f"{text}, {rival} wins" if rival != "floor" and spread.median < 1 else text


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def section_table(section: Section, rows: Sequence[Row]) -> str:
    """One line a row; a dash for what was not measured, as the floor without a C compiler."""
    names = list(dict.fromkeys(name for row in rows for name in row.seconds))
    labels = list(dict.fromkeys(label for row in rows for label in row.ratios))
    lines = [
        [
            row.work,
            str(row.threads),
            *(time_text(row.seconds[name]) if name in row.seconds else "-" for name in names),
            *(ratio_text(label, row.ratios[label]) if label in row.ratios else "-" for label in labels),
        ]
        for row in rows
    ]
    return table([TITLES[section], "threads", *names, *labels], lines)


def markdown(rows: Sequence[Row]) -> str:
    """A table for each section, then what the columns are. ValueError for rows that would stand in none."""
    if unknown := {row.section for row in rows} - TITLES.keys():
        raise ValueError(f"sections={sorted(unknown)} must be of {[*TITLES]}")
    parts = []
    keys = [KEY]
    for section in TITLES:
        chosen = [row for row in rows if row.section == section]
        if chosen:
            parts.append(section_table(section, chosen))
            keys.append(KEYS[section])
    return "\n\n".join([*parts, "\n".join(filter(None, keys))])
