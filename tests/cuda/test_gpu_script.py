"""tools/gpu/run.sh where there is no GPU: each part's end is told, and what one found outlives the others."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tools" / "gpu"
TOOLS = ("bash", "basename", "cat", "cut", "dirname", "grep", "head", "mkdir", "rm", "sed", "sleep", "tail")

# A package that says of itself that it has kernels.
PACKAGE = """
def build_info():
    cuda = {"compiled": True, "available": False, "reason": "it is a stand-in"}
    return {"version": "0.1.0", "compiler": "none", "flags": "none", "cuda": cuda}
"""
METADATA = "Metadata-Version: 2.1\nName: clr-native\nVersion: 0.1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
TESTS = """
import os
import pytest

pytestmark = pytest.mark.cuda

def test_one_that_passes():
    pass

def test_one_that_fails():
    assert False, "on purpose"

def test_one_that_is_killed():
    os.kill(os.getpid(), 9)
"""
BENCH = """
import sys, time

if __name__ == "__main__":
    print("| one step | ours |\\n| --- | --- |\\n| plain | 1.00 ms |", flush=True)
    with open(sys.argv[-1], "w") as file:
        file.write('{"machine": {"copy": "900 GB/s"}}\\n')
        file.write('{"row": {"question": "plain", "work": "large", "of_copy": 0.9}}\\n{"row')
    time.sleep(60)
"""


def verdict_of(out: Path) -> str:
    return (out / "verdict.md").read_text(encoding="utf-8")


def run(root: Path, out: Path, *parts: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(root / "tools" / "gpu" / "run.sh"), str(out), *parts]
    environment = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The scripts, and a package, tests and a benchmark that are soon done."""
    root = tmp_path / "checkout"
    shutil.copytree(SCRIPTS, root / "tools" / "gpu", ignore=shutil.ignore_patterns("*.whl", "__pycache__"))
    for name, text in {"tests/gpu/test_gpu_few.py": TESTS, "bench/cuda.py": BENCH}.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(text)
    with zipfile.ZipFile(root / "tools" / "gpu" / "clr_native-0.1.0-py3-none-any.whl", "w") as wheel:
        of_it = "clr_native-0.1.0.dist-info"
        texts = {"clr_native/__init__.py": PACKAGE, f"{of_it}/METADATA": METADATA, f"{of_it}/WHEEL": WHEEL}
        record = "".join(f"{name},,\n" for name in (*texts, f"{of_it}/RECORD"))
        for name, text in {**texts, f"{of_it}/RECORD": record}.items():
            wheel.writestr(name, text)
    return root


@pytest.mark.slow
def test_a_killed_part_leaves_the_results_of_the_others(checkout: Path, tmp_path: Path) -> None:
    """One is killed by a signal, the next by its limit; a third fails by itself."""
    out = tmp_path / "out"
    done = run(checkout, out, "install", "tests", "replay", "bench", CLR_NATIVE_GPU_LIMITS="bench=2")
    said = verdict_of(out)
    assert done.returncode == 1, done.stdout
    assert "Failed: tests, replay, bench. Skipped: nothing." in said
    assert "| install | ended |" in said
    assert "* clr_native 0.1.0, none: none\n* CUDA kernels: compiled; it is a stand-in\n" in said
    assert "it was killed by signal 9" in said
    assert "\n1 passed, 1 failed\n* failed: `tests/gpu/test_gpu_few.py::test_one_that_fails`\n" in said
    assert "* it did not end: `tests/gpu/test_gpu_few.py::test_one_that_is_killed`" in said
    assert "it was stopped at its limit of 2 s" in said
    assert "\n| plain | 1.00 ms |\n" in said
    assert "A copy reaches 900 GB/s.\n* plain, large: 90%\n" in said
    assert said in done.stdout


@pytest.mark.slow
def test_the_verdict_says_that_nothing_can_be_built(tmp_path: Path) -> None:
    """With neither a wheel nor a compiler, and with no more on the PATH than the script needs."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in (*TOOLS, "timeout", "tr"):
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    root = tmp_path / "checkout"
    for folder in ("tools/gpu", "cmake"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("*.whl"))
    nothing = {"PATH": str(tools), "CUDA_HOME": str(tmp_path), "CXX": "c++"}
    done = run(root, tmp_path / "out", "install", "tests", "kernels", **nothing)
    assert done.returncode == 1
    said = verdict_of(tmp_path / "out")
    assert "no wheel serves here, and none can be built: c++ was not found, nvcc was not found" in said
    assert "| tests | skipped | 0 | no package was installed |" in said
    assert "| kernels | skipped | 0 | ncu was not found |" in said
    done = run(root, tmp_path / "out", "install", PYTHON="no-python", **nothing)
    assert done.returncode == 1
    assert "no-python was not found" in verdict_of(tmp_path / "out")


def test_all_parts_end_in_time() -> None:
    """A part that is not heard at its limit has five seconds more."""
    limits = re.findall(r"\[(\w+)\]=(\d+)", (SCRIPTS / "run.sh").read_text(encoding="utf-8"))
    assert len(limits) == 8
    assert sum(int(limit) + 5 for _, limit in limits) <= 570


def test_other_parts_than_there_are_and_no_folder_are_refused(tmp_path: Path) -> None:
    done = run(ROOT, tmp_path, "bensch")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no part bensch; parts are environment install" in done.stderr
    assert run(ROOT, Path(os.devnull) / "out").returncode == 2
    assert [*tmp_path.iterdir()] == []


NCU = """==PROF== Connected to process 1
"ID","Process ID","Kernel Name","Block Size","gpu__time_duration.sum","launch__registers_per_thread"
"","","","","us","register/thread"
"0","1","clr_step_float32","(256, 1, 1)","120.5","64"
"1","1","clr_norm","(128, 1, 1)","80","72"
==PROF== Disconnected
"""


def test_what_tools_print_is_summed_up(tmp_path: Path) -> None:
    texts = {
        "parts.tsv": "kernels\tfailed\t3\tthe run before\nkernels\tended\t9\t\nmemcheck\tfailed\t4\ta | b\n",
        "kernels.txt": NCU,
        "memcheck.txt": "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 2 errors\n",
        "racecheck.txt": "* a clipped step\n========= RACECHECK SUMMARY: 0 hazards displayed\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "bench.json").write_text(json.dumps({"machine": {"copy": "1 GB/s"}}) + "\n")
    subprocess.run([sys.executable, SCRIPTS / "verdict.py", tmp_path], check=True, timeout=60)
    said = verdict_of(tmp_path)
    assert "Failed: memcheck. Skipped: nothing." in said
    assert "| kernels | ended | 9 |  |\n| memcheck | failed | 4 | a / b |" in said
    assert (
        "| Kernel Name | Block Size | gpu__time_duration.sum us | launch__registers_per_thread register/thread |"
        in said
    )
    assert "| clr_step_float32 | (256, 1, 1) | 120.5 | 64 |\n| clr_norm | (128, 1, 1) | 80 | 72 |\n" in said
    assert (
        "* memcheck: ERROR SUMMARY: 2 errors\n* racecheck: RACECHECK SUMMARY: 0 hazards displayed\n* a clipped" in said
    )
    assert "## Tests" not in said
