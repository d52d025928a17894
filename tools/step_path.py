"""Which files and functions one warm CPU step enters: ``python tools/step_path.py``. Linux with gcc, some minutes.

The extension is built at -O0 with gcov's counters under build/step_path. Two processes train, one of them a step longer
than the other: the difference of their counters is that step.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "step_path"
SHORT = 3  # lines: a function that is no longer is not listed

TRAIN = """
import sys, torch
from clr_native import FusedCyclicSGD
parameters = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
for parameter in parameters:
    parameter.grad = torch.ones(3)
optimizer = FusedCyclicSGD(parameters, 0.1, 0.5)
for _ in range(int(sys.argv[1])):
    optimizer.step()
"""


class Function(NamedTuple):
    """A function of csrc/, by the file and the line that it begins in."""

    file: str
    line: int
    name: str
    lines: int


def build() -> Path:
    """The package with an extension that counts, as a folder to import from."""
    pybind11 = subprocess.check_output([sys.executable, "-m", "pybind11", "--cmakedir"], text=True).strip()
    options = {
        "CMAKE_BUILD_TYPE": "Debug",
        "CMAKE_CXX_FLAGS": "-O0 --coverage",
        "CMAKE_UNITY_BUILD": "OFF",
        "CLR_NATIVE_CUDA": "OFF",
        "SKBUILD_PROJECT_VERSION": "0",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11,
    }
    defines = [f"-D{name}={value}" for name, value in options.items()]
    subprocess.run(["cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", *defines], check=True, stdout=sys.stderr)
    subprocess.run(["cmake", "--build", BUILD, "--target", "_core"], check=True, stdout=sys.stderr)
    package = BUILD / "package" / "clr_native"
    package.mkdir(parents=True, exist_ok=True)
    for source in (ROOT / "python" / "clr_native").iterdir():
        link = package / source.name
        if source.suffix != ".so" and not link.exists():
            link.symlink_to(source)
    (extension,) = BUILD.glob("_core*.so")
    link = package / extension.name
    link.unlink(missing_ok=True)
    link.symlink_to(extension)
    return package.parent


def counted(package: Path, steps: int) -> Counter[Function]:
    """How often each function ran in a process that trains so long."""
    for old in BUILD.rglob("*.gcda"):
        old.unlink()
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", TRAIN, str(steps)], check=True, env=environment, cwd=BUILD)
    counts: Counter[Function] = Counter()
    for data in BUILD.rglob("*.gcda"):
        command = ["gcov", "--json-format", "--stdout", "--demangled-names", str(data)]
        for line in subprocess.check_output(command, text=True, cwd=BUILD).splitlines():
            for file in json.loads(line)["files"]:
                path = Path(file["file"])
                path = path if path.is_absolute() else BUILD / path
                if not path.resolve().is_relative_to(ROOT / "csrc"):
                    continue
                name = str(path.resolve().relative_to(ROOT / "csrc"))
                for each in file["functions"]:
                    lines = each["end_line"] - each["start_line"] + 1
                    function = Function(name, each["start_line"], short_name(each["demangled_name"]), lines)
                    counts[function] += each["execution_count"]
    return counts


def short_name(demangled: str) -> str:
    """Its class and name, without namespaces, types and arguments."""
    name = demangled.replace("(anonymous namespace)::", "").replace("clr::", "")
    return name.partition("(")[0].partition("<")[0].split(" ")[-1]


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None).parse_args()
    if importlib.util.find_spec("pybind11") is None:
        sys.exit("pybind11 is missing: pip install pybind11 apache-tvm-ffi cmake ninja")
    package = build()
    step = counted(package, 6)
    step.subtract(counted(package, 5))
    entered = sorted({(each.file, each.line, each.name, each.lines) for each, count in step.items() if count > 0})
    files: dict[str, list[str]] = {}
    for file, _, name, lines in entered:
        stem = str(Path(file).with_suffix(""))
        if lines > SHORT and name not in files.setdefault(stem, []):
            files[stem].append(name)
        files.setdefault(stem, [])
    for stem, names in files.items():
        print(f"{stem}: {', '.join(names) or '(short functions only)'}")
    print(f"{len(files)} files, {sum(map(len, files.values()))} functions longer than {SHORT} lines")


if __name__ == "__main__":
    main()
