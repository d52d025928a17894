"""One optimizer step with its schedule: ours against torch's loop, foreach and fused."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.contenders import CONTENDERS, build, verify
from bench.rounds import seconds
from bench.workloads import WORKLOADS, Gradients, Tensors, Workload, gradient_sets

THREADS = sorted({1, torch.get_num_threads()})
# A test's share of the time: some hundred rounds of the small steps, a few of the largest.
BUDGET_SECONDS = 1.0
FEWEST_ROUNDS, MOST_ROUNDS = 7, 500


@pytest.fixture(scope="module", params=WORKLOADS.values(), ids=list(WORKLOADS))
def gradients(request: pytest.FixtureRequest) -> tuple[Workload, Gradients]:
    """One workload's gradients at a time: GPT-2's are a gigabyte."""
    workload: Workload = request.param
    return workload, gradient_sets(workload)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("contender", CONTENDERS)
def test_step(benchmark: BenchmarkFixture, gradients: tuple[Workload, Gradients], contender: str, threads: int) -> None:
    workload, sets = gradients
    torch.set_num_threads(threads)
    verify(contender, workload, sets)
    tensors = Tensors(workload, sets)
    step = build(contender, tensors).step
    for _ in range(3):
        tensors.turn()
        once = seconds(step)
    rounds = int(min(max(BUDGET_SECONDS / once, FEWEST_ROUNDS), MOST_ROUNDS))
    benchmark.group = f"{workload.title}, threads: {threads}"
    benchmark.extra_info.update(section="step", work=workload.title, contender=contender, threads=threads)
    benchmark.pedantic(step, setup=tensors.turn, rounds=rounds)  # type: ignore[no-untyped-call]  # pytest-benchmark has no types
