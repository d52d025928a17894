"""Compiles the stand-in, and runs tests with it in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch

from toolkit import include_flags

HERE = Path(__file__).parent
TESTS = HERE.parents[1]
# Tests import from these. pyproject.toml names them too, but pytest imports the plugin before it minds that.
IMPORTED_FROM = [HERE.parent, TESTS / "support", TESTS.parent / "tools"]
_FOLDER = "CLR_NATIVE_STANDIN"


@cache
def _built() -> tempfile.TemporaryDirectory[str]:
    """The folder of both libraries, which goes with this process."""
    folder = tempfile.TemporaryDirectory()
    torch_headers = f"-I{Path(torch.__file__).parent / 'include'}"
    # By its soname, libcuda.so.1 is what dlopen("libcuda.so.1") finds once it is loaded, whatever the machine has.
    driver = ["libcuda.c", "-o", f"{folder.name}/libcuda.so.1", "-Wl,-soname,libcuda.so.1", *include_flags()]
    exchange = ["exchange.c", "-o", f"{folder.name}/exchange.so", torch_headers]
    for what in (driver, exchange):
        command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", *what]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=60)
        if done.returncode:
            pytest.fail(f"{' '.join(command)}:\n{done.stderr}", pytrace=False)
    return folder


def built_folder() -> Path:
    """Of the libraries, in a process that run_tests() started."""
    return Path(os.environ[_FOLDER])


def run_tests(files: Sequence[Path], processes: int = 1, timeout: int = 300) -> None:
    """The tests of files in a new process, with the fixtures of plugin.py; or in several, which can find each other.
    Fails with what pytest wrote there.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))}
    paths = [*map(str, IMPORTED_FROM), *filter(None, [os.environ.get("PYTHONPATH")])]
    folder = _built().name
    environment |= {_FOLDER: folder, "PYTHONPATH": os.pathsep.join(paths)}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_WAIT_POLICY": "passive"}
    options = ["-q", "-p", "standin.plugin", "-p", "no:cacheprovider", "--durations=3"]
    with tempfile.TemporaryDirectory() as store:
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, *map(str, files)],
                env={**environment, "RANK": str(rank), "WORLD_SIZE": str(processes), "SHARED_STORE": store},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(processes)
        ]
        try:
            written = [process.communicate(timeout=timeout)[0] for process in running]
        finally:
            for process in running:
                process.kill()
    codes = [process.returncode for process in running]
    if any(codes):
        text = "\n".join(text for text, code in zip(written, codes, strict=True) if code)
        pytest.fail(
            f"{', '.join(file.name for file in files)} in processes of their own, exit codes {codes}:\n{text}",
            pytrace=False,
        )
