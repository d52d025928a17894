"""The step inside a training loop, ours and torch's, iteration by iteration: ``python -m bench.loop --help``."""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import median

import torch

from bench.harness import machine, tables
from bench.harness.contenders import CONTENDERS, OURS, TORCH
from bench.harness.rounds import Spread
from bench.in_loop.contenders import FLOOR, build, verify
from bench.in_loop.networks import NETWORKS, Network
from bench.step.floor import available

ITERATIONS = 60
WARM_UP = 5


def measure(network: Network, whole_tail: bool, threads: int, iterations: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of the optimizer's lines and of whole iterations. Contenders take turns, in an order drawn anew."""
    torch.set_num_threads(threads)
    verify(network, whole_tail)
    names = [*CONTENDERS, *[FLOOR] * available()]
    loops = {name: build(name, network, whole_tail) for name in names}
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in loops}
    order, shuffle = list(loops), random.Random(0).shuffle
    gc.collect()
    gc.freeze()
    for number, batch in enumerate(network.batches(WARM_UP + iterations)):
        shuffle(order)
        for name in order:
            took = loops[name].iterate(batch)
            if number >= WARM_UP:
                samples[name].append(took)
    gc.unfreeze()
    return samples


def row(title: str, threads: int, samples: dict[str, list[tuple[float, float]]]) -> dict[str, object]:
    """A row of the table. Ratios are taken iteration by iteration: what both felt at the time cancels."""
    lines = {name: [seconds for seconds, _ in each] for name, each in samples.items()}
    whole = {name: [seconds for _, seconds in each] for name, each in samples.items()}
    best = min(TORCH, key=lambda name: median(lines[name]))

    def over(theirs: list[float], ours: list[float], label: str = "torch's") -> str:
        return tables.ratio_text(label, Spread.of(a / b for a, b in zip(theirs, ours, strict=True)))

    return {
        "network": title,
        "threads": threads,
        **{name: tables.time_text(Spread.of(each)) for name, each in lines.items()},
        "torch's best / ours": over(lines[best], lines[OURS]),
        "whole iteration": over(whole[best], whole[OURS]),
        **({"ours / floor": over(lines[OURS], lines[FLOOR], FLOOR)} if FLOOR in lines else {}),
    }


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    most = torch.get_num_threads()
    parser = argparse.ArgumentParser(prog="python -m bench.loop", description=__doc__)
    add = parser.add_argument
    add(
        "--network",
        nargs="+",
        choices=list(NETWORKS),
        default=list(NETWORKS),
        metavar="NAME",
        help=f"of {list(NETWORKS)}",
    )
    add("--threads", nargs="+", type=int, default=sorted({1, most}), help=f"default: 1 and {most}")
    add(
        "--tail",
        nargs="+",
        choices=["plain", "whole"],
        default=["plain", "whole"],
        help="the step, or all behind backward()",
    )
    add("--iterations", type=int, default=ITERATIONS, help=f"of each contender; default: {ITERATIONS}")
    add("--json", type=Path, metavar="FILE", help="write machine and rows")
    add("--markdown", type=Path, metavar="FILE", help="write the table")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    found = machine.describe() | machine.load()
    rows: list[dict[str, object]] = []
    for tail, name, threads in product(options.tail, options.network, options.threads):
        print(f"measuring {name}, {tail}, {threads} ...", file=sys.stderr, flush=True)
        network = NETWORKS[name]
        title = network.title + (", whole tail" if tail == "whole" else "")
        rows.append(row(title, threads, measure(network, tail == "whole", threads, options.iterations)))
    text = markdown(found, rows)
    print(text)
    if options.json:
        options.json.write_text(json.dumps({"machine": found, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")


def markdown(found: dict[str, str], rows: Sequence[dict[str, object]]) -> str:
    table = tables.table(list(rows[0]), [[str(value) for value in each.values()] for each in rows])
    return f"{table}\n\nTime in the lines between backward() and zero_grad(). {tables.KEY}\n\n{machine.caption(found)}"


if __name__ == "__main__":
    main()
