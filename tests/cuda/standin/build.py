"""Compiles the stand-in, and runs tests with it in a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
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
_BUILDING = threading.Lock()  # two threads would build two folders, and the first goes with its last reference


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


def run_tests(file: Path, timeout: int = 300) -> None:
    """The tests of a file in a new process, with the fixtures of plugin.py; in PROCESSES new ones, if it names so many.
    Fails with what pytest wrote there.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))}
    paths = [*map(str, IMPORTED_FROM), *filter(None, [os.environ.get("PYTHONPATH")])]
    with _BUILDING:
        folder = _built().name
    environment |= {_FOLDER: folder, "PYTHONPATH": os.pathsep.join(paths)}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_WAIT_POLICY": "passive"}
    options = ["-q", "-p", "standin.plugin", "-p", "no:cacheprovider", "--durations=3"]
    named = re.search(r"^PROCESSES = (\d+)$", file.read_text(), re.MULTILINE)
    world = int(named[1]) if named else 1
    with tempfile.TemporaryDirectory() as store:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, str(file)],
                env={**environment, "RANK": str(rank), "WORLD_SIZE": str(world), "SHARED_STORE": store},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(world)
        ]
        try:
            written = [process.communicate(timeout=timeout)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
    codes = [process.returncode for process in processes]
    if any(codes):
        text = "\n".join(text for text, code in zip(written, codes, strict=True) if code)
        pytest.fail(f"{file.name} in processes of its own, exit codes {codes}:\n{text}", pytrace=False)
