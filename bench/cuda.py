"""On a GPU: ours beside torch's fused and foreach SGD, and apex's if there is one: ``python -m bench.cuda --help``.

Three times of a step with its schedule, each contender once a round in an order drawn anew:

done    from the call, with an idle device, until the device has done all of it (wall time, synchronised)
host    from the call until it returns: what the interpreter is kept from
device  between two events around a few steps that the host gave while the device was kept busy by something else: the
        launches back to back. Gradients stay in place for these; for the others two sets are used in turn.

No row has a device time where a contender waits for the device, or has too many launches for its queue.

Rows are printed and written as they are measured. What fails is told in its row, and the others go on.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import clr_native
from bench.harness import machine
from bench.harness.rounds import Visit, alternate
from bench.harness.workloads import WORKLOADS, Gradients, Workload
from bench.on_gpu.questions import Placed, Question, apex_sgd, cases, on_gpu, questions, verify
from bench.on_gpu.rows import Row, Told, row, words_of
from bench.on_gpu.times import copy_bandwidth, visits_of

ROUNDS = 30


def why_not() -> str:
    """Why nothing can be measured here; empty if it can."""
    cuda = clr_native.build_info()["cuda"]
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no GPU"
    return "" if cuda["available"] else f"clr-native cannot use the GPU: {cuda['reason']}"


Tried = tuple[dict[str, Visit], str]


def tried(question: Question, name: str, workload: Workload, tensors: Placed, gradients: Gradients) -> Tried:
    """What is timed of a contender, nothing where it fails; and what went wrong."""
    wrong = ""
    try:
        try:
            verify(question, name, workload, gradients)
        except AssertionError as found:
            wrong = words_of(found)
        visits = visits_of(question.build(name, tensors), tensors.turn)
    except Exception as error:
        return {}, words_of(error)
    return {f"{what}: {name}": go for what, go in visits.items()}, wrong


def measure(question: Question, workload: Workload, rounds: int, copied: float) -> list[Row]:
    """A contender that gives other numbers is timed all the same, and its row says so; one that fails is not."""
    gradients = question.gradients(workload)
    tensors = question.tensors(workload, on_gpu(gradients))
    found = {name: tried(question, name, workload, tensors, gradients) for name in question.contenders}
    samples = alternate({what: go for visits, _ in found.values() for what, go in visits.items()}, rounds)
    return [row(question, workload, name, samples, copied, wrong) for name, (_, wrong) in found.items()]


def measured(question: Question, workload: Workload, rounds: int, copied: float) -> list[Row]:
    """The same, or a row that tells of the error that ended it."""
    try:
        return measure(question, workload, rounds, copied)
    except Exception as error:
        return [Row(question.name, workload.title, "all", wrong=words_of(error))]


def describe() -> dict[str, str]:
    found = machine.describe()
    version = (
        importlib.import_module("apex").__dict__.get("__version__", "installed") if apex_sgd() else "not installed"
    )
    gpu = {"gpu": torch.cuda.get_device_name(), "torch's CUDA": str(torch.version.cuda), "apex": str(version)}
    return found | gpu


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cuda", description=__doc__.partition(":")[0])
    add = parser.add_argument
    names = [*questions()]
    add("--workload", nargs="+", choices=[*WORKLOADS], default=[*WORKLOADS], metavar="NAME", help=f"of {[*WORKLOADS]}")
    add("--question", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {names}; default: all")
    add("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    add("--json", type=Path, metavar="FILE", help="write machine and rows, each a line of JSON, as they are measured")
    options = parser.parse_args(argv)
    if why := why_not():
        raise SystemExit(f"bench.cuda: {why}: nothing is measured")
    found, copied = describe(), copy_bandwidth()
    found["copy"] = f"{copied / 1e9:.0f} GB/s, read and written"
    gpu = ", ".join(f"{name}: {found[name]}" for name in ("gpu", "torch's CUDA", "apex", "copy"))
    told = Told(options.json)
    told.begin(found, f"{machine.caption(found)}\n{gpu}.")
    wrong = 0
    for question, workload in cases(options.question, options.workload):
        print(f"measuring {question.name}, {workload.name} ...", file=sys.stderr, flush=True)
        rows = measured(question, workload, options.rounds, copied)
        told.tell(rows)
        wrong += sum(bool(each.wrong) for each in rows)
    if wrong:
        raise SystemExit(f"bench.cuda: {wrong} rows say what went wrong")


if __name__ == "__main__":
    main()
