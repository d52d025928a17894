"""One contender's step by itself, under pytest-benchmark."""

from __future__ import annotations

from collections.abc import Callable

from pytest_benchmark.fixture import BenchmarkFixture

from bench.harness.rounds import seconds
from bench.harness.workloads import Tensors

# A test's share of the time: some hundred rounds of the small steps, a few of the largest.
BUDGET_SECONDS = 1.0
FEWEST_ROUNDS, MOST_ROUNDS = 7, 500


def measure(
    benchmark: BenchmarkFixture,
    step: Callable[[], None],
    tensors: Tensors,
    *,
    section: str,
    contender: str,
    threads: int,
) -> None:
    """Times ``step``, each after the gradients have turned; what the report reads stands in ``extra_info``."""
    for _ in range(3):
        tensors.turn()
        once = seconds(step)
    rounds = int(min(max(BUDGET_SECONDS / once, FEWEST_ROUNDS), MOST_ROUNDS))
    title = tensors.workload.title
    benchmark.group = f"{section}: {title}, threads: {threads}"
    benchmark.extra_info.update(section=section, work=title, contender=contender, threads=threads)
    benchmark.pedantic(step, setup=tensors.turn, rounds=rounds)  # type: ignore[no-untyped-call]  # pytest-benchmark has no types
