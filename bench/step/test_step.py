"""One optimizer step with its schedule: ours against torch's loop, foreach and fused."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.harness.by_itself import measure
from bench.harness.contenders import CONTENDERS, build, verify
from bench.harness.workloads import WORKLOADS, Gradients, Tensors, Workload, gradient_sets

THREADS = sorted({1, torch.get_num_threads()})


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
    measure(benchmark, step, tensors, section="step", contender=contender, threads=threads)
