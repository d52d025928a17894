"""What CLR_NATIVE_CUDA=AUTO compiles for, with a libcuda.so.1 that shows the GPUs that a test wants."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from image import CUBIN, PTX, entries
from toolkit import nvcc, skip_or_fail

ROOT = Path(__file__).parents[2]
DRIVER = """
#include <stdlib.h>
#include <string.h>
/* GPUS is "75 89", or "error" where no driver runs. */
static const char* gpus(void) { return getenv("GPUS"); }
int cuInit(unsigned flags) { return flags != 0 ? 1 : strcmp(gpus(), "error") == 0 ? 999 : 0; }
int cuDeviceGetCount(int* count) { *count = (int)(strlen(gpus()) + 1) / 3; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = 1000 + ordinal; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  const int capability = atoi(gpus() + 3 * (device - 1000));
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : -1;
  return 0;
}
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the library."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "driver.c", "-o", "libcuda.so.1"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    return folder


def seen(gpus: str, driver: Path) -> dict[str, str]:
    return {**os.environ, "LD_LIBRARY_PATH": str(driver), "GPUS": gpus}


@pytest.mark.parametrize(
    ("gpus", "capabilities", "why"),
    [
        ("89", "89", None),
        ("90 75 90", "75;90", None),
        ("61 86", "86", None),
        ("61", None, "the GPU here is of compute capability 61, where the kernels need 75"),
        ("", None, "the CUDA driver sees no GPU"),
        ("error", None, "cuInit of the CUDA driver returned 999"),
    ],
)
def test_the_driver_is_asked(gpus: str, capabilities: str | None, why: str | None, driver: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "cmake" / "visible_gpus.py", "75"],
        env=seen(gpus, driver),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (
        why is not None,
        capabilities or "",
        why or "",
    )


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a build that is configured again and again: only the first time, cmake tries the compiler."""
    return tmp_path_factory.mktemp("build")


@pytest.fixture(scope="module")
def build_without_nvcc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one: cmake remembers what it has found."""
    return tmp_path_factory.mktemp("build_without_nvcc")


def configured(folder: Path, environment: dict[str, str], *settings: str) -> str:
    """What cmake says of CUDA."""
    for tool in ("cmake", "ninja"):
        if shutil.which(tool) is None:
            skip_or_fail(f"{tool} is not on the PATH")
    pybind11 = pytest.importorskip("pybind11").get_cmake_dir()
    options = [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11}", "-DSKBUILD_PROJECT_VERSION=0"]
    options += ["-DCLR_NATIVE_CUDA=AUTO", "-DCLR_NATIVE_CUDA_ARCHITECTURES="]  # unless the settings have others
    done = subprocess.run(
        ["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *options, *settings],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return next((line for line in done.stdout.splitlines() if line.startswith("-- CUDA: ")), done.stderr)


@pytest.mark.slow
def test_auto_compiles_for_the_gpu_that_is_visible_and_for_newer_ones(
    tmp_path: Path, build: Path, driver: Path
) -> None:
    nvcc()
    assert "for sm_89;compute_75" in configured(build, seen("89", driver))
    done = subprocess.run(
        ["ninja", "-C", build, "-t", "commands", "clr_native_image"], capture_output=True, text=True, check=True
    )
    (command,) = [line for line in done.stdout.splitlines() if "-fatbin" in line]
    (tmp_path / "small.cu").write_text("__global__ void small() {}\n")  # in the place of all kernels
    command = command.replace(str(ROOT / "csrc" / "cuda" / "kernels.cu"), str(tmp_path / "small.cu"))
    command = command.replace(str(build / "clr_native.fatbin"), str(tmp_path / "clr_native.fatbin"))
    subprocess.run(command, shell=True, cwd=build, check=True, timeout=300)
    found = entries((tmp_path / "clr_native.fatbin").read_bytes())
    assert [(entry.kind, entry.architecture) for entry in found] == [(CUBIN, 89), (PTX, 75)]


@pytest.mark.slow
def test_auto_compiles_nothing_where_no_gpu_is_visible_and_says_how_to(build: Path, driver: Path) -> None:
    nvcc()
    said = configured(build, seen("", driver))
    assert "this build has no CUDA kernels: the build saw no GPU for them: the CUDA driver sees no GPU" in said
    assert "-C cmake.define.CLR_NATIVE_CUDA=ON" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("AUTO", "this build has no CUDA kernels: nvcc was not found. To have them, put nvcc on the PATH"),
        ("ON", "CLR_NATIVE_CUDA=ON: nvcc was not found. Install the CUDA toolkit and put nvcc on the PATH"),
        ("OFF", "this build has no CUDA kernels: CLR_NATIVE_CUDA=OFF was given"),
        ("on", "CLR_NATIVE_CUDA=on must be AUTO, ON or OFF"),
    ],
)
def test_what_is_missing_is_named(setting: str, words: str, build_without_nvcc: Path, driver: Path) -> None:
    """cmake looks for nvcc nowhere."""
    places = ("CMAKE_SYSTEM_PATH", "SYSTEM_ENVIRONMENT_PATH", "CMAKE_ENVIRONMENT_PATH")
    nowhere = [f"-DCMAKE_FIND_USE_{place}=OFF" for place in places]
    tools = [f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}", f"-DCMAKE_CXX_COMPILER={shutil.which('c++')}"]
    environment = {name: value for name, value in seen("89", driver).items() if name != "CUDA_HOME"}
    said = configured(build_without_nvcc, environment, f"-DCLR_NATIVE_CUDA={setting}", *nowhere, *tools)
    assert words in " ".join(said.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "variable", "words"),
    [
        ("", "", "for sm_89;compute_75"),
        ("", "80, 90 80", "for sm_80;sm_90;compute_75"),
        ("75;90", "80", "for sm_75;sm_90;compute_75"),
        ("12", "", "CLR_NATIVE_CUDA_ARCHITECTURES has 12, where the kernels need 75 or more, and"),
        ("", "9.", "CLR_NATIVE_CUDA_ARCHITECTURES has 9., where the kernels need 75 or more, and"),
    ],
)
def test_architectures_are_chosen(setting: str, variable: str, words: str, build: Path, driver: Path) -> None:
    """The setting wins over the environment variable, and either over the driver."""
    nvcc()
    environment = {**seen("89", driver), "CLR_NATIVE_CUDA_ARCHITECTURES": variable}
    said = configured(build, environment, f"-DCLR_NATIVE_CUDA_ARCHITECTURES={setting}")
    assert words in " ".join(said.split())


def test_torch_has_a_dlpack_header_where_there_is_no_other(tmp_path: Path) -> None:
    (tmp_path / "tvm_ffi.py").write_text("raise ImportError('as if it were not installed')\n")

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *options, str(ROOT / "cmake" / "dlpack_header.py")]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    assert run().stdout.strip().endswith("/torch/include/ATen/dlpack.h")
    without_torch = run("-S")
    assert (without_torch.returncode, without_torch.stdout) == (1, "")
    assert "pip install apache-tvm-ffi, or torch>=2.10" in without_torch.stderr
