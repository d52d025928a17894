"""Host code and kernels together, in processes where a stand-in plays the driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from standin.build import run_tests
from toolkit import shipped_image

TESTS = Path(__file__).parents[1]
# What only a stand-in can show: files of their own processes, for they count what is held and who has asked the driver.
RUNS = sorted((TESTS / "cuda" / "standin_runs").glob("run_*.py"))
# What is tested on real hardware too. A process takes five seconds to begin: these share one.
GPU = sorted(file for file in (TESTS / "gpu").glob("test_*.py") if "machine: Machine" in file.read_text())
QUICK = [file for file in (*RUNS, *GPU) if file.stem in ("run_late", "test_gpu_refused")]
SLOW = {"gpu": [file for file in GPU if file not in QUICK]} | {each.stem: [each] for each in RUNS if each not in QUICK}


def test_quick_ones_with_the_stand_in() -> None:
    shipped_image()  # skips a build without kernels
    run_tests(QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("files", SLOW.values(), ids=SLOW)
def test_with_the_stand_in(files: list[Path]) -> None:
    shipped_image()
    run_tests(files, 2 if files[0].stem == "run_shared" else 1)


@pytest.mark.slow
def test_a_failure_in_another_process_is_shown_here(tmp_path: Path) -> None:
    file = tmp_path / "run_wrong.py"
    file.write_text("def test_sum(gpu):\n    one = 1\n    assert one + 1 == 3\n")
    with pytest.raises(pytest.fail.Exception, match=r"(?s)run_wrong.py.*assert \(1 \+ 1\) == 3"):
        run_tests([file])
