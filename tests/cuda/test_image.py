"""The image of kernels in the installed package: for which GPUs, what its PTX holds, what kernels take of a GPU."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from clr_native import _core, build_info
from image import CUBIN, PTX, entries
from machine_code import Resources, resources
from toolkit import nvcc, shipped, shipped_image, shipped_text, skip_or_fail

BLOCKS = {"clr_step": 1, "clr_norm": 2, "clr_share": 1}  # at a time on a multiprocessor; device_plan.cpp counts on it
ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]
REGISTERS = 65536  # of a multiprocessor, on all of these


def test_every_architecture_is_in_the_image() -> None:
    found = entries(shipped_image())
    if "CLR_NATIVE_CUDA=ON" not in build_info()["flags"]:
        skip_or_fail("the installed clr-native was built for the GPU of its machine alone")
    assert [entry.architecture for entry in found if entry.kind == CUBIN] == ARCHITECTURES
    assert [entry.architecture for entry in found if entry.kind == PTX] == [min(ARCHITECTURES)]
    assert all(entry.data.startswith(b"\x7fELF") for entry in found if entry.kind == CUBIN)


def wrong_with(taken: Resources, kernel: str) -> list[str]:
    """There must be registers for its BLOCKS, and no more local memory than the arrays of the PTX take."""
    functions = shipped().functions
    threads = functions[kernel].max_threads
    assert threads is not None, "no __launch_bounds__"
    declared = [
        each for function in functions.values() for scope in function.scopes for each in scope.variables.values()
    ]
    arrays = sum(each.size for each in declared if each.space == "local")
    wrong = []
    if not 0 < taken.registers * threads * BLOCKS[kernel] <= REGISTERS:
        wrong.append(f"{taken.registers} registers for each of {threads} threads, {BLOCKS[kernel]} times")
    if taken.frame > arrays:
        wrong.append(f"spills: {taken.frame} bytes of local memory, where the PTX has arrays of {arrays}")
    return wrong


def test_kernels_fit_every_architecture_and_spill_nothing() -> None:
    for entry in entries(shipped_image()):
        if entry.kind == CUBIN:
            taken = resources(entry.data)
            assert sorted(name for name in taken if name.startswith("clr_")) == sorted(BLOCKS), entry.architecture
            for kernel in BLOCKS:
                assert wrong_with(taken[kernel], kernel) == [], f"{kernel} on sm_{entry.architecture}"


@pytest.mark.slow
def test_ptxas_reports_the_same_and_a_spill_is_seen(tmp_path: Path) -> None:
    """With registers for four blocks at a time, which are too few for the step."""
    (tmp_path / "step.ptx").write_text(shipped_text().replace(".minnctapersm 1", ".minnctapersm 4"))
    options = ["-arch=sm_80", "-cubin", "-Xptxas", "-v", "-o", "step.cubin"]
    report = subprocess.run(
        [nvcc(), *options, "step.ptx"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=100
    ).stderr
    words = r"Function properties for clr_step\s+(\d+) bytes stack frame, (\d+) bytes spill(?s:.*?)Used (\d+) registers"
    found = re.search(words, report)
    assert found, report
    frame, spilled, registers = map(int, found.groups())
    assert spilled > 0
    taken = resources((tmp_path / "step.cubin").read_bytes())["clr_step"]
    assert (taken.frame, taken.registers) == (frame, registers)
    (wrong,) = wrong_with(taken, "clr_step")
    assert wrong.startswith("spills")


def ptx_of_kernel(name: str) -> str:
    """Its own text, and that of the functions that it calls."""
    functions = {
        found[1]: found[0]
        for found in re.finditer(r"^\.?(?:visible )?\.(?:entry|func).*?\b(\w+)\((?s:.*?)^}", shipped_text(), re.M)
    }
    wanted, reached = [name], ""
    for function in wanted:
        reached += functions[function]
        wanted += [other for other in functions if other in functions[function] and other not in wanted]
    return reached


def test_the_step_reads_and_writes_16_bytes_at_once_and_fuses_only_where_the_formula_does() -> None:
    ptx = ptx_of_kernel("clr_step")
    assert re.search(r"\bld\.v4\.u32\b", ptx)
    assert re.search(r"\bst\.v4\.u32\b", ptx)
    assert re.search(r"\bfma\.rn\.f32\b", ptx)
    assert re.search(r"\bfma\.rn\.f64\b", ptx)
    assert not re.search(r"\.ftz|\.approx", ptx)


def test_the_package_is_linked_against_nothing_of_cuda() -> None:
    shipped_image()
    done = subprocess.run(["ldd", _core.__file__], capture_output=True, text=True, check=True)
    assert "libc.so" in done.stdout
    assert "cuda" not in done.stdout
