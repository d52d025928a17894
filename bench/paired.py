"""Ours and torch's in one process, turn by turn: ``python -m bench.paired --help``."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch

from bench.half import momentum
from bench.harness import contenders, machine, tables
from bench.harness.contenders import CONTENDERS, OURS, kept
from bench.harness.names import OUR_SCALER, TORCH_SCHEDULER
from bench.harness.question import Question
from bench.harness.rounds import Samples, Visit, alternate, seconds, visit
from bench.harness.rows import Row, save
from bench.harness.workloads import WORKLOADS, Refilled, Tensors, Workload
from bench.imports import importing
from bench.schedules import bulk, scheduler
from bench.schedules.bulk import Memory, Work
from bench.step import by_hand, floor, lars
from bench.whole_step import chain

# New tensors land on other pages, which alone moves a memory-bound row by some percent.
BUILDS = 5
ROUNDS = 30
IMPORT_ROUNDS = 10
# Replaying a million steps takes seconds a round; a tenth is timed and multiplied.
REPLAY_SHARE = 10
QUESTIONS: dict[str, Question] = {
    "whole-step": chain.QUESTION,
    "lars": lars.QUESTION,
    "bfloat16-momentum": momentum.QUESTION,
    "by-hand": by_hand.QUESTION,
}


def step_visits(workload: Workload, threads: int, backward: bool, graph: bool) -> dict[str, Visit]:
    """Every contender over the very same parameters and gradients, each with its own momentum.

    The floor runs over our buffers as well: same addresses, same traffic.
    """
    tensors = Tensors(workload, backward=backward, graph=graph)
    built = {name: contenders.build(name, tensors) for name in CONTENDERS}
    visits = {name: visit(contender.step, tensors.turn) for name, contender in built.items()}
    if floor.available():
        buffers = built[OURS].momentum_buffers()
        bare = floor.Floor(tensors, buffers, threads, contenders.bounds(1)[0][0])
        visits["floor"] = visit(bare.step, tensors.turn)
    visits["reading"] = visit(floor.reading(tensors), tensors.turn)
    return visits


def step_row(workload: Workload, threads: int, rounds: int, backward: bool, graph: bool) -> Row:
    torch.set_num_threads(threads)
    contenders.verify(OURS, workload)
    if floor.available():
        floor.verify(workload, threads)
    samples = build_and_alternate(lambda: step_visits(workload, threads, backward, graph), rounds)
    return Row.of("step", title(workload, backward, graph), threads, samples)


def title(workload: Workload, backward: bool, graph: bool) -> str:
    return workload.title + ", new gradients" * backward + ", no graph" * (not graph)


def build_and_alternate(make: Callable[[], dict[str, Visit]], rounds: int) -> Samples:
    """``rounds`` in all, over tensors that are made anew ``BUILDS`` times."""
    samples: Samples = {}
    builds = min(BUILDS, rounds)
    for build in range(builds):
        visits = make()
        for name, values in alternate(visits, -(-rounds // builds), seed=build).items():
            samples.setdefault(name, []).extend(values)
        del visits
        gc.collect()  # optimizer and scheduler refer to each other, and GPT-2's buffers are large
    return samples


def question_row(question: Question, workload: Workload, threads: int, rounds: int, backward: bool, graph: bool) -> Row:
    """As a step's row, over gradients that every contender finds the same though some write into them."""
    torch.set_num_threads(threads)
    gradients = question.gradients(workload)
    for name in question.contenders:
        question.verify(name, workload, gradients)
    with_floor = question is chain.QUESTION and floor.available()
    if with_floor:
        floor.verify_whole_step(workload, threads, gradients)

    def make() -> dict[str, Visit]:
        tensors = Refilled(workload, gradients, backward=backward, graph=graph)
        built = {name: question.build(name, tensors) for name in question.contenders}
        visits = {name: visit(contender.step, tensors.turn) for name, contender in built.items()}
        if with_floor:
            buffers, averages = (kept(built[OUR_SCALER].optimizer, name) for name in ("momentum_buffer", "average"))
            bare = floor.Floor(tensors, buffers, threads, contenders.bounds(1)[0][0], averages)
            visits["floor"] = visit(bare.step, tensors.turn)
        return visits

    samples = build_and_alternate(make, rounds)
    return Row.of(question.section, title(workload, backward, graph), threads, samples)


def schedule_row(work: Work, memory: Memory, threads: int, rounds: int) -> Row:
    bulk.allocate(memory)
    torch.set_num_threads(threads)
    million = bulk.Bulk(work)
    replay_steps = work.steps // REPLAY_SHARE
    reference = million.reference(replay_steps)
    visits: dict[str, Visit] = {}
    for name, values in million.contenders.items():
        if name == TORCH_SCHEDULER:
            visits[name] = lambda: REPLAY_SHARE * seconds(lambda: million.torch_replay(replay_steps))
        else:
            bulk.verify(values(), reference)
            visits[name] = partial(seconds, values)
    return Row.of("schedule", f"{work.title}, {memory} memory", threads, alternate(visits, rounds))


def schedule_rows(threads: Sequence[int], rounds: int) -> list[Row]:
    """Each in an interpreter of its own: memory that other work freed would warm the cold one."""
    cases = product(bulk.WORKS, bulk.MEMORIES, threads, [rounds])
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.starmap(schedule_row, cases, chunksize=1)


def scheduler_rows(rounds: int) -> list[Row]:
    rows = []
    for case in scheduler.CASES:
        scheduler.verify(case)
        built = {name: scheduler.build(name, case) for name in scheduler.SCHEDULERS}
        visits = {name: visit(each.step, lambda: None) for name, (_, each) in built.items()}
        rows.append(Row.of("scheduler", case.title, 1, alternate(visits, rounds)))
    return rows


def import_row(rounds: int) -> Row:
    visits = {name: importing.importing(imports) for name, imports in importing.IMPORTS.items()}
    return Row.of("import", "in a fresh interpreter", 1, alternate(visits, rounds))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    choices = [*WORKLOADS, *QUESTIONS, "scheduler", "schedule", "import"]
    most = torch.get_num_threads()
    parser = argparse.ArgumentParser(prog="python -m bench.paired", description=__doc__)
    add = parser.add_argument
    add("--workload", nargs="+", choices=choices, default=choices, metavar="NAME", help=f"of {choices}")
    add("--threads", nargs="+", type=int, default=sorted({1, most}), help=f"default: 1 and {most}")
    add("--rounds", type=int, help=f"default: {ROUNDS}, of imports {IMPORT_ROUNDS}")
    add("--backward", action="store_true", help="new gradient tensors before each step, as autograd makes them")
    add("--no-graph", action="store_true", help="no autograd graph refers to the parameters, as after `del loss`")
    add("--json", type=Path, metavar="FILE", help="write machine, times and ratios")
    return parser.parse_args(argv)


def measure(name: str, options: argparse.Namespace) -> list[Row]:
    """All rows of one workload."""
    threads, rounds = options.threads, options.rounds
    if name == "scheduler":
        return scheduler_rows(rounds or ROUNDS)
    if name == "schedule":
        return schedule_rows(threads, rounds or ROUNDS)
    if name == "import":
        return [import_row(rounds or IMPORT_ROUNDS)]
    how = (rounds or ROUNDS, options.backward, not options.no_graph)
    if name in QUESTIONS:
        question = QUESTIONS[name]
        works = product(question.workloads, threads)
        return [question_row(question, WORKLOADS[work], count, *how) for work, count in works]
    return [step_row(WORKLOADS[name], count, *how) for count in threads]


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    found = machine.describe() | machine.load()
    rows: list[Row] = []
    for name in options.workload:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        rows += measure(name, options)
    print(f"{tables.markdown(rows)}\n\n{machine.caption(found)}")
    if options.json:
        save(options.json, found, rows)


if __name__ == "__main__":
    main()
