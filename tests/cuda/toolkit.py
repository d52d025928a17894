"""What the tests of CUDA code need of nvcc."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

from image import PTX, entries, image_in
from ptx import Module, parse

SAMPLES = Path(__file__).parent / "samples"
SOURCES = Path(__file__).parents[2] / "csrc"


def skip_or_fail(why: str) -> NoReturn:
    """For a test that lacks nvcc, or what it makes: it fails where CLR_NATIVE_REQUIRE_NVCC is set, as in .ci/run."""
    if os.environ.get("CLR_NATIVE_REQUIRE_NVCC"):
        pytest.fail(f"CLR_NATIVE_REQUIRE_NVCC is set, but {why}")
    pytest.skip(why)  # the caller's words


def nvcc() -> str:
    """Its path, or see skip_or_fail()."""
    found = shutil.which("nvcc")
    if found is None:
        skip_or_fail("nvcc is not on the PATH, and there is no PTX without it")
    return found


def include_flags() -> list[str]:
    """How a C compiler finds <cuda.h>, as nvcc tells its own."""
    done = subprocess.run(
        [nvcc(), "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True, timeout=60
    )
    told = [line for line in done.stderr.splitlines() if line.startswith("#$ INCLUDES=")]
    return shlex.split(told[0].partition("=")[2]) if told else []


@cache
def _ptx(compiler: str, source: Path, target: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "out.ptx"
        options = [
            "-std=c++17",
            f"-I{source.parent}",
            f"-I{SOURCES}",
            "-fmad=false",
            f"-arch={target}",
            "-ptx",
            "-o",
            str(to),
        ]
        done = subprocess.run([compiler, *options, str(source)], capture_output=True, text=True, timeout=600)
        if done.returncode:
            pytest.fail(f"nvcc {source.name} for {target}:\n{done.stderr}")
        return to.read_text()


def ptx_of(source: Path, target: str = "sm_80") -> str:
    """A .cu file as PTX of a virtual architecture, compiled once in a test run."""
    return _ptx(nvcc(), source, target)


def compiled(source: Path, target: str = "sm_80") -> Module:
    """The same, parsed."""
    return _parsed(ptx_of(source, target))


_parsed = cache(parse)


@cache
def shipped_image() -> bytes:
    """The image of kernels in the installed package."""
    from clr_native import _core  # not before a stand-in of the driver is there

    image = image_in(Path(_core.__file__))
    if image is None:
        skip_or_fail("the installed clr-native was built without CUDA kernels")
    return image


def shipped_text() -> str:
    """The PTX in it: what all machine code is made from, and what a GPU runs for which there is none."""
    (text,) = [entry.text() for entry in entries(shipped_image()) if entry.kind == PTX]
    return text


def shipped() -> Module:
    """The same, parsed."""
    return _parsed(shipped_text())
