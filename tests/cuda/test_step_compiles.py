"""nvcc's and ptxas' report of the step kernel for every architecture, and what its PTX holds."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from device_step import STEP
from toolkit import SOURCES, nvcc, ptx_of

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
THREADS = 512  # of a block: kDeviceThreads of tables.h
REGISTERS = 65536  # of a multiprocessor, on all of these


def report(architecture: str, folder: Path) -> str:
    options = ["-std=c++17", f"-I{SOURCES}", "-fmad=false", f"-arch={architecture}", "-cubin", "-Xptxas", "-v"]
    done = subprocess.run(
        [nvcc(), *options, "-o", str(folder / f"{architecture}.cubin"), str(STEP)],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return done.stderr


def test_every_architecture_compiles_without_spills(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = dict(zip(ARCHITECTURES, pool.map(lambda each: report(each, tmp_path), ARCHITECTURES), strict=True))
    for architecture, text in reports.items():
        spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", text)
        assert spills, architecture
        assert set(spills) == {"0"}, architecture
        (registers,) = re.findall(r"Used (\d+) registers", text)
        assert int(registers) * THREADS <= REGISTERS, architecture
        assert "warning" not in text, architecture


def test_the_ptx_reads_and_writes_16_bytes_at_once_and_fuses_only_where_the_formula_does() -> None:
    ptx = ptx_of(STEP)
    assert re.search(r"\bld\.v4\.u32\b", ptx)
    assert re.search(r"\bst\.v4\.u32\b", ptx)
    assert re.search(r"\bfma\.rn\.f32\b", ptx)
    assert re.search(r"\bfma\.rn\.f64\b", ptx)
    assert not re.search(r"\.ftz|\.approx", ptx)
