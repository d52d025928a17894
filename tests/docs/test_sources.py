"""How the files of the package depend on each other: downwards."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "clr_native"


def module_name(file: Path) -> str:
    return ".".join(("clr_native", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imported(module: str) -> set[str]:
    """The modules of this package that a module imports anywhere, for types too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & MODULES.keys() - {module}


def test_no_import_is_part_of_a_circle() -> None:
    """A package is where its own modules take names from each other: it counts for those outside of it."""
    assert "clr_native.sgd.optimizer" in MODULES
    inner = {name: {other for other in imported(name) if not name.startswith(f"{other}.")} for name in MODULES}
    try:
        graphlib.TopologicalSorter(inner).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


COLUMN = ["core", "kernel", "cpu", "cuda", "python"]  # each storey includes what is below it
ROOMS = ["torch", "scheduler", "optimizer"]  # of the last one


def place(path: str) -> tuple[int, int]:
    storey, *rooms = Path(path).parts[:-1]
    return COLUMN.index(storey), ROOMS.index(rooms[0]) if rooms else len(ROOMS)


def test_no_file_includes_what_stands_above_it() -> None:
    files = [file for file in sorted((ROOT / "csrc").rglob("*")) if file.suffix in {".h", ".cpp", ".inl", ".cu"}]
    against = [
        f"{own} includes {other}"
        for own, file in ((str(file.relative_to(ROOT / "csrc")), file) for file in files)
        for other in re.findall(r'#include "([^"]+/[^"]+)"', file.read_text())
        if place(other) > place(own)
    ]
    assert files
    assert against == []


def test_the_harness_of_the_benchmarks_imports_no_question() -> None:
    files = sorted((ROOT / "bench" / "harness").glob("*.py"))
    imports = re.findall(r"^ *(?:from|import) bench.*", "".join(file.read_text() for file in files), re.MULTILINE)
    assert imports
    assert [line for line in imports if "bench.harness" not in line] == []
