"""What a kernel engineer looks for in the code of plain updates, and the order of fences in that of all kernels."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from image import CUBIN, entries
from planted import planted
from test_image import PLAIN, ptx_of_kernel
from toolkit import SAMPLES, SOURCES, ptx_of, shipped_image, skip_or_fail

ARCHITECTURES = [80, 90, 100]
LOAD = re.compile(r"\bLDG?\.E\S*\.128\S* R(\d+),")
REGISTER = re.compile(r"\bR(\d+)\b")


def nvdisasm() -> str:
    """Its path: on the PATH, or in PyPI's nvidia-cuda-nvdisasm."""
    found = shutil.which("nvdisasm")
    package = importlib.util.find_spec("nvidia")
    for folder in package.submodule_search_locations or () if package and not found else ():
        found = next(map(str, Path(folder).glob("*/bin/nvdisasm")), found)
    if found is None:
        skip_or_fail("nvdisasm was found neither on the PATH nor in nvidia-cuda-nvdisasm")
    return found


@dataclass
class Code:
    architecture: int
    instructions: dict[str, list[str]]  # of each plain kernel, as text


@pytest.fixture(scope="module", params=ARCHITECTURES)
def code(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Code:
    at = tmp_path_factory.mktemp("code") / "kernels.cubin"
    found = [entry for entry in entries(shipped_image()) if (entry.kind, entry.architecture) == (CUBIN, request.param)]
    if not found:
        skip_or_fail(f"the installed clr-native has no machine code for sm_{request.param}")
    at.write_bytes(found[0].data)
    done = subprocess.run([nvdisasm(), "-c", at], capture_output=True, text=True, check=True, timeout=100)
    parts = re.split(r"^\.text\.(\w+):$", done.stdout, flags=re.MULTILINE)
    listed = dict(zip(parts[1::2], parts[2::2], strict=True))
    line = re.compile(r"^\s+/\*\w{4,}\*/\s+(.*?) ;", re.MULTILINE)
    return Code(request.param, {kernel: line.findall(listed[kernel]) for kernel in PLAIN})


def asked_together(instructions: list[str]) -> int:
    """The most loads of 16 bytes that follow each other before one of their results is used."""
    most, asked = 0, list[int]()
    for instruction in instructions:
        load = LOAD.search(instruction)
        if load:
            asked.append(int(load[1]))
            most = max(most, len(asked))
        elif asked:
            filled = {first + i for first in asked for i in range(4)}
            if filled & set(map(int, REGISTER.findall(instruction))):
                asked.clear()
    return most


@pytest.mark.parametrize("kernel", PLAIN)
def test_all_numbers_of_two_packs_are_asked_for_together(code: Code, kernel: str) -> None:
    """Parameter, gradient and buffer: 2 blocks of 512 threads ask for 98 KB at once on a multiprocessor. Before sm_90,
    doubles leave too few registers for that; the memory of those GPUs needs half as much.
    """
    assert asked_together(code.instructions[kernel]) >= (3 if kernel.endswith("64") and code.architecture < 90 else 6)


def test_asked_together_counts_up_to_the_first_use() -> None:
    loads = ["LD.E.128 R4, desc[UR4][R2.64]", "@P0 LDG.E.128 R8, desc[UR4][R2.64+0x10]"]
    assert asked_together([*loads, "FADD R0, R1, R2", loads[0]]) == 3
    assert asked_together([*loads, "FADD R0, R1, R11", loads[0]]) == 2


# --- the order of fences ------------------------------------------------------------------------------------


def orders_memory(ptx: str) -> bool:
    """True if the block's last atomic stands behind a barrier and between two fences, and threads wait behind that."""
    events = re.findall(r"\b(bar|membar|fence|atom)\.", ptx)
    return bool(re.search(r"bar (membar|fence) atom (membar|fence) bar(?!.* atom)", " ".join(events)))


@pytest.mark.parametrize("kernel", ["clr_step", "clr_norm", *PLAIN])
def test_what_a_block_wrote_is_there_before_its_ticket(kernel: str) -> None:
    assert orders_memory(ptx_of_kernel(kernel))


@pytest.mark.slow
@pytest.mark.parametrize("right", ["__threadfence();\n    last", "- 1;\n    __threadfence();"])
def test_a_missing_fence_is_seen(right: str, tmp_path: Path) -> None:
    units = SOURCES / "cuda" / "work_units.h"
    source = planted(tmp_path, SAMPLES / "step_float32.cu", units, right, right.replace("__threadfence();", ""))
    assert not orders_memory(ptx_of(source))
    assert orders_memory(ptx_of(SAMPLES / "step_float32.cu"))
