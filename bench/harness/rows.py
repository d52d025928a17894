"""A measured row, written by the paired benchmark and read by the report, from pytest's JSON as well."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from bench.harness import question
from bench.harness.contenders import OURS, TORCH
from bench.harness.names import BFLOAT16, FLOAT32, NUMPY, OUR_SCALER, OUT, SCHEDULED, TORCH_SCALER, TORCH_SCHEDULER
from bench.harness.rounds import Samples, Spread

Section = Literal["step", question.Section, "scheduler", "schedule", "import"]

# Above 1 ours is faster.
AGAINST_BEST = "torch's best / ours"
AGAINST_FLOOR = "floor / ours"
AGAINST_TORCH = "torch's / ours"


@dataclass(frozen=True)
class Row:
    """Times in seconds and ratios of one question, all from the same run."""

    section: Section
    work: str
    threads: int
    rounds: int
    seconds: dict[str, Spread]
    ratios: dict[str, Spread]

    @classmethod
    def of(cls, section: Section, work: str, threads: int, samples: Samples) -> Row:
        """From paired rounds. Ratios are taken round by round: what both felt at the time cancels."""
        rounds = min(len(values) for values in samples.values())
        medians = {name: median(values) for name, values in samples.items()}
        ratios = {
            label: Spread.of(a / b for a, b in zip(samples[slower], samples[faster], strict=True))
            for label, (slower, faster) in pairs(section, medians).items()
        }
        spreads = {name: Spread.of(values) for name, values in samples.items()}
        return cls(section, work, threads, rounds, spreads, ratios)


def pairs(section: Section, medians: Mapping[str, float]) -> dict[str, tuple[str, str]]:
    """Which ratios a section tells, of the contenders that were measured: label, and over what is divided."""
    wanted: dict[str, tuple[str, str]] = {}
    measured = [name for name in TORCH if name in medians]
    best = min(measured, key=lambda name: medians[name], default="")
    if section in ("step", "lars"):
        wanted = {AGAINST_BEST: (best, OURS), AGAINST_FLOOR: ("floor", OURS)}
    elif section == "whole step":
        wanted = {f"torch's best / {ours}": (best, ours) for ours in (OUR_SCALER, TORCH_SCALER)}
        wanted[AGAINST_FLOOR] = ("floor", OUR_SCALER)
    elif section == "bfloat16 momentum":
        wanted = {"float32 / bfloat16": (FLOAT32, BFLOAT16)}
    elif section == "by hand":
        wanted = {AGAINST_BEST: (best, OURS), "its own schedule / ours": (SCHEDULED, OURS)}
    elif section == "scheduler":
        wanted = {AGAINST_TORCH: (TORCH_SCHEDULER, OURS)}
    elif section == "schedule":
        wanted = {
            f"{theirs.split()[0]} / {ours}": (theirs, contender)
            for theirs in (NUMPY, TORCH_SCHEDULER)
            for ours, contender in (("fresh", OURS), ("out=", OUT))
        }
    return {label: pair for label, pair in wanted.items() if set(pair) <= set(medians)}


def save(path: Path, machine: dict[str, str], rows: Sequence[Row]) -> None:
    document = {"machine": machine, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> tuple[dict[str, str], list[Row]]:
    """Machine and rows of a file written by ``bench.paired --json`` or by ``pytest --benchmark-json``."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if "benchmarks" in document:
        return document["machine_info"], from_pytest(document["benchmarks"])
    return document["machine"], [from_dict(row) for row in document["rows"]]


def from_dict(row: dict[str, Any]) -> Row:
    spreads = {key: {name: Spread(**value) for name, value in row[key].items()} for key in ("seconds", "ratios")}
    return Row(**(row | spreads))


def from_pytest(benchmarks: Sequence[dict[str, Any]]) -> list[Row]:
    """One row for each work and thread count, in the tests' order; its ratios are of medians."""
    found: dict[tuple[Section, str, int], dict[str, dict[str, Any]]] = {}
    for benchmark in benchmarks:
        info = benchmark["extra_info"]
        row = (info["section"], info["work"], info["threads"])
        found.setdefault(row, {})[info["contender"]] = benchmark["stats"]
    rows = []
    for (section, work, threads), contenders in found.items():
        times = {name: Spread(each["q1"], each["median"], each["q3"]) for name, each in contenders.items()}
        medians = {name: spread.median for name, spread in times.items()}
        ratios = {
            label: Spread.of([medians[slower] / medians[faster]])
            for label, (slower, faster) in pairs(section, medians).items()
        }
        rounds = min(each["rounds"] for each in contenders.values())
        rows.append(Row(section, work, threads, rounds, times, ratios))
    return rows
