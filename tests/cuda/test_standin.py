"""Host code and kernels together, in processes where a stand-in plays the driver."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest

from standin.build import run_tests

TESTS = Path(__file__).parents[1]
# What only a stand-in can show, and what is tested on real hardware too.
RUNS = sorted((TESTS / "cuda" / "standin_runs").glob("run_*.py"))
RUNS += sorted(file for file in (TESTS / "gpu").glob("test_*.py") if "machine: Machine" in file.read_text())
# Those that take a second or two. The others are slow.
QUICK = ("run_late", "test_gpu_refused")


@pytest.mark.parametrize(
    "file", [pytest.param(file, id=file.stem, marks=[] if file.stem in QUICK else [pytest.mark.slow]) for file in RUNS]
)
def test_with_the_stand_in(file: Path, begun: dict[Path, Future[None]]) -> None:
    begun[file].result()


@pytest.mark.slow
def test_a_failure_in_another_process_is_shown_here(tmp_path: Path) -> None:
    file = tmp_path / "run_wrong.py"
    file.write_text("def test_sum(gpu):\n    one = 1\n    assert one + 1 == 3\n")
    with pytest.raises(pytest.fail.Exception, match=r"(?s)run_wrong.py.*assert \(1 \+ 1\) == 3"):
        run_tests(file)
