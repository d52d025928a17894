"""The lr and momentum of a million steps on one thread: ours in bulk, numpy's formula, torch's scheduler."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.contenders import OURS
from bench.schedules import MEMORIES, MODES, NUMPY, OUT, TORCH, Bulk, Memory, Mode, Values, allocate, verify

ROUNDS = {OURS: 50, OUT: 50, NUMPY: 50, TORCH: 3}


@cache
def bulk(mode: Mode) -> tuple[Bulk, Values]:
    """A mode and torch's values for it."""
    made = Bulk(mode)
    return made, made.torch_replay()


@pytest.fixture(scope="module", params=MEMORIES)
def memory(request: pytest.FixtureRequest) -> Memory:
    """All tests of cold memory come first: what warm memory has freed would warm it."""
    chosen: Memory = request.param
    allocate(chosen)
    return chosen


@pytest.mark.parametrize("contender", ROUNDS)
@pytest.mark.parametrize("mode", MODES)
def test_schedule(benchmark: BenchmarkFixture, memory: Memory, mode: Mode, contender: str) -> None:
    torch.set_num_threads(1)
    made, reference = bulk(mode)
    values = made.contenders[contender]
    verify(values(), reference)
    work = f"{mode}, {memory} memory"
    benchmark.group = f"1e6 values of lr and momentum: {work}"
    benchmark.extra_info.update(section="schedule", work=work, contender=contender, threads=1)
    benchmark.pedantic(values, rounds=ROUNDS[contender])  # type: ignore[no-untyped-call]
