"""What is told of a contender: a line of the table, which is printed when it is measured, and one of a file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.harness.rounds import Samples, Spread
from bench.harness.tables import ratio_text, table, time_text
from bench.harness.workloads import Workload
from bench.on_gpu.questions import Question

TIMES = ("done", "host", "device")
HEADER = ["one step with its schedule", "", *TIMES, "done / ours", "device / ours", "of a copy", "what went wrong"]
CACHED_BYTES = 1 << 28  # what moves less may stay in caches, and says nothing about memory


@dataclass(frozen=True)
class Row:
    """`slower`: how many times as long as ours it takes, of each of the three times."""

    question: str
    work: str
    contender: str
    seconds: dict[str, Spread] = field(default_factory=dict)
    slower: dict[str, Spread] = field(default_factory=dict)
    of_copy: float | None = None  # of ours: bytes a second of the device time, as a share of what a copy reaches
    wrong: str = ""  # an error, for which there are no times, or what was found by verifying


def row(question: Question, workload: Workload, name: str, samples: Samples, copied: float, wrong: str = "") -> Row:
    seconds, slower = {}, {}
    for what in TIMES:
        found, own = (samples.get(f"{what}: {each}", [math.nan]) for each in (name, question.ours))
        if any(map(math.isnan, found)):
            continue
        seconds[what] = Spread.of(found)
        if name != question.ours and not any(map(math.isnan, own)):
            slower[what] = Spread.of(a / b for a, b in zip(found, own, strict=True))
    of_copy = None
    if name == question.ours and "device" in seconds and not math.isnan(copied):
        moved = workload.elements * question.bytes_an_element
        of_copy = moved / seconds["device"].median / copied if moved > CACHED_BYTES else None
    return Row(question.name, workload.title, name, seconds, slower, of_copy, wrong)


def words_of(error: BaseException) -> str:
    """In one line, fit for a cell of a table."""
    return f"{type(error).__name__}: {error}".partition("\n")[0].replace("|", "/")[:300]


def header() -> str:
    return table(HEADER, [])


def line(each: Row) -> str:
    cells = [
        f"{each.question}, {each.work}",
        each.contender,
        *(time_text(each.seconds[what]) if what in each.seconds else "-" for what in TIMES),
        *(ratio(each, what) for what in ("done", "device")),
        "" if each.of_copy is None else f"{each.of_copy:.0%}",
        each.wrong,
    ]
    return table(cells, []).partition("\n")[0]


def ratio(each: Row, what: str) -> str:
    if what not in each.slower:
        return ""
    return ratio_text(each.contender.removeprefix("with "), each.slower[what])


@dataclass(frozen=True)
class Told:
    """Prints rows as they are measured, and appends each to a file, if there is one: a run may be cut short."""

    file: Path | None

    def begin(self, machine: dict[str, str], caption: str) -> None:
        print(f"{caption}\n\n{header()}", flush=True)
        if self.file is not None:
            self.file.write_text("", encoding="utf-8")
        self._append({"machine": machine})

    def tell(self, rows: Sequence[Row]) -> None:
        for each in rows:
            print(line(each), flush=True)
            self._append({"row": asdict(each)})

    def _append(self, entry: dict[str, Any]) -> None:
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
