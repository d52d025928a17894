"""What build_info() says, and that nothing is looked for before it is asked."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

import clr_native

CUDA = clr_native.build_info()["cuda"]


def driver_is_found() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def test_the_version_is_the_package_s() -> None:
    assert clr_native.build_info()["version"] == clr_native.__version__ == version("clr-native")


def test_cuda_is_available_or_there_is_a_reason() -> None:
    assert CUDA.keys() == {"compiled", "available", "reason"}
    assert CUDA["available"] == (CUDA["reason"] == "")
    assert CUDA["compiled"] == ("compute_75" in clr_native.build_info()["flags"])
    assert CUDA["compiled"] or ("nvcc" in CUDA["reason"] and "-C cmake.define.CLR_NATIVE_CUDA=ON" in CUDA["reason"])


@pytest.mark.skipif(not CUDA["compiled"], reason="the installed package was built without nvcc")
@pytest.mark.skipif(driver_is_found(), reason="there is a CUDA driver here, so that it cannot be missed")
def test_a_missing_driver_is_named_and_nothing_else_is_missing() -> None:
    assert "libcuda.so.1" in CUDA["reason"]
    assert not CUDA["available"]


@pytest.mark.skipif(not CUDA["compiled"], reason="the installed package was built without nvcc")
def test_the_driver_is_looked_for_when_asked_and_not_by_the_import() -> None:
    marks = ("import torch", "import clr_native", "clr_native.build_info()")
    code = "; ".join(["import os", *(f"os.write(2, b'{mark}\\n'); {mark}" for mark in marks)])
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LD_DEBUG": "libs"},  # the C library tells where it looks
        capture_output=True,
        text=True,
        check=True,
    )
    by_torch, rest = ran.stderr.split(f"{marks[1]}\n")
    by_import, by_question = rest.split(f"{marks[2]}\n")
    assert "libcuda.so" not in by_import
    assert "find library=libcuda.so.1" in by_question or "libcuda.so.1" in by_torch
