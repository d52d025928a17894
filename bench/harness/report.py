"""JSON of pytest-benchmark or of bench.paired to Markdown and a figure: ``python -m bench.harness.report --help``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench.harness import figure, machine, tables
from bench.harness.rows import load


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.harness.report", description=__doc__)
    parser.add_argument("json", type=Path, nargs="+", help="the rows of several files stand in one table")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="default: standard output")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="a PNG of the steps")
    options = parser.parse_args(argv)
    loaded = [load(path) for path in options.json]
    rows = [row for _, found in loaded for row in found]
    caption = "\n".join(dict.fromkeys(machine.caption(found) for found, _ in loaded))
    text = f"{tables.markdown(rows)}\n\n{caption}\n"
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    if options.figure:
        figure.draw(rows, caption, options.figure)


if __name__ == "__main__":
    main()
