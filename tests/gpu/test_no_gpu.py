"""What there is to be said where there is no GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hardware import why_no_gpu

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_benchmark_measures_nothing_and_says_why() -> None:
    if not why_no_gpu():
        pytest.skip("there is a GPU, and the benchmark would measure it")
    done = subprocess.run([sys.executable, "-m", "bench.cuda"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("bench.cuda: ")
    assert line.endswith("nothing is measured")


@pytest.mark.slow
def test_the_benchmark_s_own_tests() -> None:
    """They stand beside it, and need no GPU. The conftest there is for a plugin that need not be installed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", "bench/test_cuda.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout
