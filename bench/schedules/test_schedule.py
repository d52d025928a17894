"""The lr and momentum of a million steps on one thread: ours in bulk, numpy's formula, torch's scheduler."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.harness.contenders import OURS
from bench.harness.names import NUMPY, OUT, TORCH_SCHEDULER
from bench.schedules.bulk import MEMORIES, WORKS, Bulk, Memory, Values, Work, allocate, verify

ROUNDS = {OURS: 50, OUT: 50, NUMPY: 50, TORCH_SCHEDULER: 3}


@cache
def bulk(work: Work) -> tuple[Bulk, Values]:
    """A work and the values it is verified against."""
    made = Bulk(work)
    return made, made.reference()


@pytest.fixture(scope="module", params=MEMORIES)
def memory(request: pytest.FixtureRequest) -> Memory:
    """All tests of cold memory come first: what warm memory has freed would warm it."""
    chosen: Memory = request.param
    allocate(chosen)
    return chosen


@pytest.mark.parametrize("contender", ROUNDS)
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.title)
def test_schedule(benchmark: BenchmarkFixture, memory: Memory, work: Work, contender: str) -> None:
    torch.set_num_threads(1)
    made, reference = bulk(work)
    if contender not in made.contenders:
        pytest.skip("torch's CyclicLR has neither other windows nor step sizes for each group")
    values = made.contenders[contender]
    verify(values(), reference)
    title = f"{work.title}, {memory} memory"
    benchmark.group = f"1e6 values of lr and momentum: {title}"
    benchmark.extra_info.update(section="schedule", work=title, contender=contender, threads=1)
    benchmark.pedantic(values, rounds=ROUNDS[contender])  # type: ignore[no-untyped-call]  # pytest-benchmark has no types
