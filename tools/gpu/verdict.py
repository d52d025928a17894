"""Sums up what run.sh has written so far, in OUT/verdict.md: ``verdict.py OUT``. It needs Python and nothing else."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
BESIDE_KERNEL = ("Kernel Name", "Grid Size", "Block Size")  # columns of ncu that are told; its metrics have dunders
SUMMARIES = ("ERROR SUMMARY", "RACECHECK SUMMARY", "Error: ", "==ERROR==")


def lines_of(out: Path, part: str) -> list[str]:
    file = out / f"{part}.txt"
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []


def starred(out: Path, part: str) -> list[str]:
    return [line for line in lines_of(out, part) if line.startswith("* ")]


def parts(out: Path) -> list[list[str]]:
    """Name, how it ended, seconds and words of each, where it ran last."""
    lines = [line.split("\t", 3) for line in (out / "parts.tsv").read_text(encoding="utf-8").splitlines()]
    return [*{line[0]: line for line in lines}.values()]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines]


def tests(lines: Sequence[str]) -> list[str]:
    """Counted as they ended, for pytest may have been killed before it counted them."""
    ended: dict[str, str] = {}
    begun = ""
    for line in lines:
        if line.startswith("="):
            if ended:
                break  # what follows repeats them
            continue
        if found := re.match(r"(tests/\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", line):
            ended[found[1]] = {"XFAIL": "xfailed", "XPASS": "xpassed"}.get(found[2], found[2].lower())
            begun = ""
        elif found := re.match(r"tests/\S+::\S+", line):
            begun = found[0]
    if not ended and not begun:
        return []
    counts = [(list(ended.values()).count(outcome), outcome) for outcome in OUTCOMES]
    told = [", ".join(f"{count} {outcome}" for count, outcome in counts if count or outcome in OUTCOMES[:2])]
    told += [f"* {ended[name]}: `{name}`" for name in ended if ended[name] in ("failed", "error", "xpassed")]
    if begun:
        told.append(f"* it did not end: `{begun}`")
    reasons = {line for line in lines if line.startswith("SKIPPED [")}
    return [*told, *(f"* {line}" for line in sorted(reasons))]


def bandwidth(out: Path) -> list[str]:
    """The shares of what a copy reaches, of ours."""
    file = out / "bench.json"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    entries = [json.loads(line) for line in text.splitlines() if line.endswith("}")]  # the last may be cut short
    rows = [entry["row"] for entry in entries if "row" in entry]
    shares = [f"* {row['question']}, {row['work']}: {row['of_copy']:.0%}" for row in rows if row["of_copy"] is not None]
    copied = [f"A copy reaches {entry['machine']['copy']}." for entry in entries if "machine" in entry]
    return [*copied, *shares]


def kernels(lines: Sequence[str]) -> list[str]:
    """ncu's table, with the units in its second line."""
    begin = next((at for at, line in enumerate(lines) if line.startswith('"ID"')), None)
    if begin is None:
        return [f"* {line}" for line in lines if line.startswith("==ERROR==")]
    header, units, *rows = list(csv.reader(line for line in lines[begin:] if line.startswith('"')))
    chosen = [at for at, name in enumerate(header) if name in BESIDE_KERNEL or "__" in name]
    titles = [f"{header[at]} {units[at]}".strip() for at in chosen]
    return table(titles, ([row[at] for at in chosen] for row in rows if len(row) == len(header)))


def sanitizers(out: Path) -> list[str]:
    found = [
        f"* {part}: {line.lstrip('= ')}"
        for part in ("memcheck", "racecheck")
        for line in lines_of(out, part)
        if any(summary in line for summary in SUMMARIES)
    ]
    return list(dict.fromkeys(found))


def verdict(out: Path) -> str:
    ended = parts(out)
    failed = [name for name, how, *_ in ended if how == "failed"]
    skipped = [name for name, how, *_ in ended if how == "skipped"]
    heard = f"Failed: {', '.join(failed) or 'nothing'}. Skipped: {', '.join(skipped) or 'nothing'}."
    sections = {
        "Parts": table(["part", "", "seconds", ""], ended),
        "Environment": [*starred(out, "environment"), *starred(out, "install")],
        "Tests": tests(lines_of(out, "tests")),
        "Graph replay": starred(out, "replay"),
        "Share of copy bandwidth": bandwidth(out),
        "Times": [line for line in lines_of(out, "bench") if line.startswith("| ")],
        "Kernels": kernels(lines_of(out, "kernels")),
        "compute-sanitizer": [*sanitizers(out), *starred(out, "memcheck"), *starred(out, "racecheck")],
    }
    told = [f"## {title}\n\n" + "\n".join(lines) for title, lines in sections.items() if lines]
    return "\n\n".join(["# Verdict", heard, *told]) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "verdict.md").write_text(verdict(folder), encoding="utf-8")
