"""On a GPU: ours beside torch's fused and foreach SGD, and apex's if there is one: ``python -m bench.cuda --help``.

Three times of a step with its schedule, each contender once a round in an order drawn anew:

done    from the call, with an idle device, until the device has done all of it (wall time, synchronised)
host    from the call until it returns: what the interpreter is kept from
device  between two events around a few steps that the host gave while the device was kept busy by something else: the
        launches back to back. Gradients stay in place for these; for the others two sets are used in turn.

No row has a device time where a contender waits for the device, or has too many launches for its queue.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import clr_native
from bench.harness import contenders, machine
from bench.harness.contenders import OURS, SCHEDULE_TOLERANCE, VERIFIED_STEPS, Contender, equal, nearly_equal
from bench.harness.names import OUR_SCALER
from bench.harness.rounds import Samples, Spread, Visit, alternate, visit
from bench.harness.tables import ratio_text, table, time_text
from bench.harness.workloads import WORKLOADS, Gradients, Refilled, Tensors, Workload, gradient_sets
from bench.whole_step import chain

ROUNDS = 30
APEX = "apex"
STEPS_AT_ONCE = 4  # between two events
COPIED_BYTES = 1 << 28
CYCLES_A_SECOND = 2.5e9  # of a device, more than any has: it is to be busy for longer than the host takes
BYTES_AN_ELEMENT = {"plain": 20, "whole-step": 32}  # of ours: see README.md
CACHED_BYTES = 1 << 28  # what moves less may stay in caches, and says nothing about memory

Build = Callable[[str, Refilled], Contender]


def why_not() -> str:
    """Why nothing can be measured here; empty if it can."""
    cuda = clr_native.build_info()["cuda"]
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no GPU"
    return "" if cuda["available"] else f"clr-native cannot use the GPU: {cuda['reason']}"


# --- who is compared, and on what -----------------------------------------------------------------------------------


class OnGpu(Refilled):
    """Gradients are given: on the GPU already."""

    @staticmethod
    def parameter(values: Tensor) -> Tensor:
        return torch.nn.Parameter(values.cuda())


class Kept(OnGpu):
    """Gradients that no step writes into are handed out as they are."""

    turn = Tensors.turn


@dataclass(frozen=True)
class Question:
    """`ours` is the contender that others are compared with."""

    name: str
    ours: str
    contenders: tuple[str, ...]
    build: Build
    gradients: Callable[[Workload], Gradients]
    tensors: type[OnGpu]
    kept: tuple[str, ...]  # what stands in the state of ours afterwards, beside the weights


def apex_sgd() -> Any:
    """apex's FusedSGD, or None where it is not installed, or without its CUDA extensions."""
    try:
        importlib.import_module("amp_C")
        return importlib.import_module("apex.optimizers").FusedSGD
    except ImportError:
        return None


def build_plain(name: str, tensors: Refilled) -> Contender:
    if name != APEX:
        return contenders.build(name, tensors)
    optimizer = apex_sgd()(**contenders.sgd_arguments(tensors))
    return contenders.pair_of(optimizer, contenders.cyclic_lr(optimizer, tensors))


def questions() -> dict[str, Question]:
    rivals = ("fused", "foreach", *([APEX] if apex_sgd() is not None else []))
    plain = Question("plain", OURS, (OURS, *rivals), build_plain, gradient_sets, Kept, ("momentum_buffer",))
    names = (*chain.SCALERS, "fused", "foreach")
    kept = ("momentum_buffer", "average")
    whole = Question("whole-step", OUR_SCALER, names, chain.build, chain.scaled_gradients, OnGpu, kept)
    return {"plain": plain, "whole-step": whole}


def on_gpu(gradients: Gradients) -> Gradients:
    first, second = ([each.cuda() for each in kept] for kept in gradients)
    return first, second


# --- verified before anything is timed ------------------------------------------------------------------------------


def verify(question: Question, name: str, workload: Workload, gradients: Gradients) -> None:
    """AssertionError unless ours on the GPU equals ours on the CPU bit for bit, and others are near."""
    tensors, reference_tensors = question.tensors(workload, on_gpu(gradients)), Refilled(workload, gradients)
    contender = question.build(name, tensors)
    reference = question.build(question.ours, reference_tensors)
    for _ in range(VERIFIED_STEPS):
        for group, wanted in zip(contender.optimizer.param_groups, reference.optimizer.param_groups, strict=True):
            for key in ("lr", "momentum"):
                apart = abs(group[key] - wanted[key])
                assert apart <= SCHEDULE_TOLERANCE, f"{name}, {workload.name}: {key} is {apart!r} away from ours"
        for stepped, turned in ((contender, tensors), (reference, reference_tensors)):
            turned.turn()
            stepped.step()
    own = isinstance(contender.optimizer, clr_native.FusedCyclicSGD)
    close = equal if own else nearly_equal
    what = f"{name}, {workload.name}"
    close(f"{what}, weights", to_cpu(tensors.parameters), reference_tensors.parameters)
    for key in question.kept if own else ("momentum_buffer",):
        found = contenders.kept(contender.optimizer, key)
        close(f"{what}, {key}", to_cpu(found), contenders.kept(reference.optimizer, key))


def to_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [each.detach().cpu() for each in tensors]


# --- times ----------------------------------------------------------------------------------------------------------


def busy(seconds: float) -> None:
    torch.cuda._sleep(int(seconds * CYCLES_A_SECOND))  # type: ignore[no-untyped-call]  # torch gives it no types


def between_events(work: Callable[[], object], ahead: float) -> float:
    """Seconds that the device takes for work that is given to it while it is busy for ``ahead`` seconds.

    NaN where it was idle before all of the work was given.
    """
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # as above
    torch.cuda.synchronize()
    busy(ahead)
    begin.record()
    work()
    end.record()
    early = begin.query()  # type: ignore[no-untyped-call]  # as above
    torch.cuda.synchronize()
    return math.nan if early else begin.elapsed_time(end) / 1e3


def visits_of(contender: Contender, turn: Callable[[], None]) -> dict[str, Visit]:
    def idle() -> None:
        turn()
        torch.cuda.synchronize()

    def done() -> None:
        contender.step()
        torch.cuda.synchronize()

    host = visit(contender.step, idle)

    def steps() -> None:
        for _ in range(STEPS_AT_ONCE):
            contender.step()

    def device() -> float:
        idle()
        contender.step()  # what the device has to be told of these gradients
        return between_events(steps, 1e-3 + 2 * STEPS_AT_ONCE * host()) / STEPS_AT_ONCE

    return {"done": visit(done, idle), "host": host, "device": device}


def copy_bandwidth() -> float:
    """Bytes a second that the device copies within its memory, read and written ones: what can be had."""
    source, target = (torch.empty(COPIED_BYTES, dtype=torch.uint8, device="cuda") for _ in range(2))
    times = [between_events(lambda: target.copy_(source), 1e-3) for _ in range(20)]
    return 2 * COPIED_BYTES / Spread.of(times[5:]).median


# --- tables ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """`slower`: how many times as long as ours it takes, of each of the three times."""

    question: str
    work: str
    contender: str
    seconds: dict[str, Spread]
    slower: dict[str, Spread]
    of_copy: float | None  # of ours: bytes a second of the device time, as a share of what a copy reaches


def measure(question: Question, workload: Workload, rounds: int, copied: float) -> list[Row]:
    gradients = question.gradients(workload)
    for name in question.contenders:
        verify(question, name, workload, gradients)
    tensors = question.tensors(workload, on_gpu(gradients))
    visits: dict[str, Visit] = {}
    for name in question.contenders:
        contender = question.build(name, tensors)
        visits |= {f"{what}: {name}": go for what, go in visits_of(contender, tensors.turn).items()}
    samples = alternate(visits, rounds)
    return [row(question, workload, name, samples, copied) for name in question.contenders]


def row(question: Question, workload: Workload, name: str, samples: Samples, copied: float) -> Row:
    seconds, slower = {}, {}
    for what in ("done", "host", "device"):
        own, found = samples[f"{what}: {question.ours}"], samples[f"{what}: {name}"]
        if any(map(math.isnan, found)):
            continue
        seconds[what] = Spread.of(found)
        if name != question.ours and not any(map(math.isnan, own)):
            slower[what] = Spread.of(a / b for a, b in zip(found, own, strict=True))
    of_copy = None
    if name == question.ours and "device" in seconds:
        moved = workload.elements * BYTES_AN_ELEMENT[question.name]
        of_copy = moved / seconds["device"].median / copied if moved > CACHED_BYTES else None
    return Row(question.name, workload.title, name, seconds, slower, of_copy)


def markdown(rows: Sequence[Row]) -> str:
    header = ["one step with its schedule", "", "done", "host", "device", "done / ours", "device / ours", "of a copy"]
    lines = [
        [
            f"{row.question}, {row.work}",
            row.contender,
            *(time_text(row.seconds[what]) if what in row.seconds else "-" for what in ("done", "host", "device")),
            *(ratio(row, what) for what in ("done", "device")),
            "" if row.of_copy is None else f"{row.of_copy:.0%}",
        ]
        for row in rows
    ]
    return table(header, lines)


def ratio(row: Row, what: str) -> str:
    if what not in row.slower:
        return ""
    return ratio_text(row.contender.removeprefix("with "), row.slower[what])


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
    add("--workload", nargs="+", choices=[*WORKLOADS], default=[*WORKLOADS], metavar="NAME", help=f"of {[*WORKLOADS]}")
    add("--question", nargs="+", choices=[*BYTES_AN_ELEMENT], default=[*BYTES_AN_ELEMENT], help="default: both")
    add("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    add("--json", type=Path, metavar="FILE", help="write machine, times and ratios")
    options = parser.parse_args(argv)
    if why := why_not():
        raise SystemExit(f"bench.cuda: {why}: nothing is measured")
    found, copied = describe(), copy_bandwidth()
    found["copy"] = f"{copied / 1e9:.0f} GB/s, read and written"
    rows: list[Row] = []
    for question in options.question:
        for work in options.workload:
            print(f"measuring {question}, {work} ...", file=sys.stderr, flush=True)
            rows += measure(questions()[question], WORKLOADS[work], options.rounds, copied)
    gpu = ", ".join(f"{name}: {found[name]}" for name in ("gpu", "torch's CUDA", "apex", "copy"))
    print(f"{markdown(rows)}\n\n{machine.caption(found)}\n{gpu}.")
    if options.json:
        document = {"machine": found, "rows": [asdict(each) for each in rows]}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
