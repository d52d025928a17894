"""What pytest-benchmark writes to JSON: our machine description, and nothing that names a host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bench.harness import machine


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, str]:
    return machine.describe()


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    output_json["commit_info"].pop("project", None)
    for benchmark in output_json["benchmarks"]:
        # Every single time and every shape would make the file a hundred times larger.
        benchmark["stats"].pop("data", None)
        benchmark.pop("params", None)


@pytest.fixture(autouse=True)
def thread_count() -> Iterator[None]:
    """A benchmark's thread count is its own."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
