"""The image of kernels in the installed package, what its PTX holds, and what ptxas says of the kernels."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import clr_native
from image import CUBIN, PTX, entries
from toolkit import nvcc, shipped_image, shipped_text

NAMES = ["clr_step", "clr_norm"]
ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]
THREADS = 512  # of a block: kDeviceThreads of tables.h
REGISTERS = 65536  # of a multiprocessor, on all of these


def test_every_architecture_is_in_the_image() -> None:
    found = entries(shipped_image())
    assert [entry.architecture for entry in found if entry.kind == CUBIN] == ARCHITECTURES
    assert [entry.architecture for entry in found if entry.kind == PTX] == [min(ARCHITECTURES)]
    for entry in found:
        if entry.kind == CUBIN:
            assert entry.plain().startswith(b"\x7fELF")


def report(architecture: int, folder: Path) -> str:
    """What ptxas says of the shipped PTX, from which the build made the machine code too."""
    (folder / "shipped.ptx").write_text(shipped_text())
    options = [f"-arch=sm_{architecture}", "-cubin", "-Xptxas", "-v", "-o", str(folder / f"{architecture}.cubin")]
    done = subprocess.run(
        [nvcc(), *options, str(folder / "shipped.ptx")], capture_output=True, text=True, timeout=600, check=True
    )
    return done.stderr


def test_ptxas_spills_nothing_on_any_architecture(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = dict(zip(ARCHITECTURES, pool.map(lambda each: report(each, tmp_path), ARCHITECTURES), strict=True))
    for architecture, text in reports.items():
        spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", text)
        registers = dict(re.findall(r"entry function '(\w+)'(?s:.*?)Used (\d+) registers", text))
        assert set(spills) == {"0"}, architecture
        assert sorted(registers) == sorted(NAMES), architecture
        assert all(int(count) * THREADS <= REGISTERS for count in registers.values()), architecture
        assert "warning" not in text, architecture


def ptx_of_kernel(name: str) -> str:
    """Its own text, and that of the functions that it calls."""
    (text,) = [entry.text() for entry in entries(shipped_image()) if entry.kind == PTX]
    functions = {
        found[1]: found[0]
        for found in re.finditer(r"^\.?(?:visible )?\.(?:entry|func).*?\b(\w+)\((?s:.*?)^}", text, re.M)
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
    needed = Path(clr_native._core.__file__).read_bytes()
    assert b"libcudart" not in needed
    program = "import clr_native, pathlib; print('libcuda' in pathlib.Path('/proc/self/maps').read_text())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n", "an import must not load the driver"


def test_build_info_says_what_is_missing() -> None:
    shipped_image()
    cuda = clr_native.build_info()["cuda"]
    assert cuda["compiled"] is True
    assert cuda["available"] == (cuda["reason"] == "")
    if not cuda["available"]:
        assert "CUDA driver" in cuda["reason"]
