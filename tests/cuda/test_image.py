"""The image of kernels in the installed package: for which GPUs, what its PTX holds, what kernels take of a GPU."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from clr_native import _core, build_info
from image import CUBIN, PTX, entries
from machine_code import Resources, resources
from toolkit import SAMPLES, nvcc, ptx_of, shipped, shipped_image, shipped_text, skip_or_fail

PLAIN = [f"clr_step_{dtype}" for dtype in ("float32", "float64", "bfloat16", "float16")]
BLOCKS = {"clr_step": 3, "clr_release": 2, "clr_norm": 2, "clr_share": 2} | dict.fromkeys(
    PLAIN, 2
)  # at a time on a multiprocessor
SPILLED = {"clr_step": 88}  # bytes a thread: all variants of an update share its registers
ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]
REGISTERS = 65536  # of a multiprocessor, on all of these


def test_every_architecture_is_in_the_image() -> None:
    found = entries(shipped_image())
    if "CLR_NATIVE_CUDA=ON" not in build_info()["flags"]:
        skip_or_fail("the installed clr-native was built for the GPU of its machine alone")
    assert [entry.architecture for entry in found if entry.kind == CUBIN] == ARCHITECTURES
    assert [entry.architecture for entry in found if entry.kind == PTX] == [min(ARCHITECTURES)]
    assert all(entry.data.startswith(b"\x7fELF") for entry in found if entry.kind == CUBIN)


def wrong_with(taken: Resources, kernel: str, spilled: int = 0) -> list[str]:
    """There must be registers for its BLOCKS, and no local memory but for what it may spill."""
    threads = shipped().functions[kernel].max_threads
    assert threads is not None, "no __launch_bounds__"
    wrong = []
    if not 0 < taken.registers * threads * BLOCKS[kernel] <= REGISTERS:
        wrong.append(f"{taken.registers} registers for each of {threads} threads, {BLOCKS[kernel]} times")
    if taken.frame > spilled:
        wrong.append(f"spills: {taken.frame} bytes of local memory")
    return wrong


def test_kernels_fit_every_architecture() -> None:
    for entry in entries(shipped_image()):
        if entry.kind == CUBIN:
            taken = resources(entry.data)
            assert sorted(name for name in taken if name.startswith("clr_")) == sorted(BLOCKS), entry.architecture
            for kernel in BLOCKS:
                wrong = wrong_with(taken[kernel], kernel, SPILLED.get(kernel, 0))
                assert wrong == [], f"{kernel} on sm_{entry.architecture}"


@pytest.mark.slow
def test_ptxas_reports_the_same_and_a_spill_is_seen(tmp_path: Path) -> None:
    """With registers for four blocks at a time, which are too few for a plain update."""
    kernel = "clr_step_float32"
    text = ptx_of(SAMPLES / "step_float32.cu").replace(".minnctapersm 2", ".minnctapersm 4")
    (tmp_path / "step.ptx").write_text(text)
    options = ["-arch=sm_80", "-cubin", "-Xptxas", "-v", "-o", "step.cubin"]
    report = subprocess.run(
        [nvcc(), *options, "step.ptx"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=100
    ).stderr
    words = rf"entry function '{kernel}'(?s:.*?)(\d+) bytes stack frame, (\d+) bytes spill(?s:.*?)Used (\d+) registers"
    found = re.search(words, report)
    assert found, report
    frame, spilled, registers = map(int, found.groups())
    assert spilled > 0
    taken = resources((tmp_path / "step.cubin").read_bytes())[kernel]
    assert (taken.frame, taken.registers) == (frame, registers)
    (wrong,) = wrong_with(taken, kernel)
    assert wrong.startswith("spills")


def ptx_of_kernel(name: str) -> str:
    """Its own text, and that of the functions that it calls."""
    headers = r"^(?=(?:\.visible )?\.(?:entry|func)\b)"
    parts = re.split(headers, shipped_text(), flags=re.MULTILINE)[1:]
    functions = {found[1]: part for part in parts if "{" in part and (found := re.search(r"(\w+)\(", part))}
    wanted, reached = [name], ""
    for function in wanted:
        reached += functions[function]
        wanted += [other for other in functions if other in functions[function] and other not in wanted]
    return reached


def test_the_step_reads_and_writes_16_bytes_at_once_and_fuses_only_where_the_formula_does() -> None:
    for kernel in ("clr_step", *PLAIN):
        ptx = ptx_of_kernel(kernel)
        assert re.search(r"\bld\.v[24]\.[fu](32|64)\b", ptx)
        assert re.search(r"\bst\.v[24]\.[fu](32|64)\b", ptx)
        assert re.search(r"\bfma\.rn\.f64\b" if kernel == "clr_step_float64" else r"\bfma\.rn\.f32\b", ptx)
        assert not re.search(r"\.ftz|\.approx", ptx)


def test_the_package_is_linked_against_nothing_of_cuda() -> None:
    shipped_image()
    done = subprocess.run(["ldd", _core.__file__], capture_output=True, text=True, check=True)
    assert "libc.so" in done.stdout
    assert "cuda" not in done.stdout
