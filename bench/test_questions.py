"""The whole step, LARS and momentum in bfloat16, each contender by itself."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.harness.by_itself import measure
from bench.harness.question import Question
from bench.harness.workloads import WORKLOADS, Gradients, Refilled, Workload
from bench.paired import QUESTIONS

THREADS = sorted({1, torch.get_num_threads()})
CASES = [(question, WORKLOADS[work]) for question in QUESTIONS.values() for work in question.workloads]
CONTENDERS = list(dict.fromkeys(name for question in QUESTIONS.values() for name in question.contenders))

Case = tuple[Question, Workload, Gradients]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0].section}-{case[1].name}")
def case(request: pytest.FixtureRequest) -> Case:
    question, workload = request.param
    return question, workload, question.gradients(workload)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("contender", CONTENDERS)
def test_question(benchmark: BenchmarkFixture, case: Case, contender: str, threads: int) -> None:
    question, workload, gradients = case
    if contender not in question.contenders:
        pytest.skip(f"{contender} does not take part in {question.section}")
    torch.set_num_threads(threads)
    question.verify(contender, workload, gradients)
    tensors = Refilled(workload, gradients)
    step = question.build(contender, tensors).step
    measure(benchmark, step, tensors, section=question.section, contender=contender, threads=threads)
