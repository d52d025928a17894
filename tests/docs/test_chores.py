"""The files that name chores agree with noxfile.py, where the chores' commands stand."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if not (ROOT / "noxfile.py").exists():
    pytest.skip("chores are left out of the source distribution, in which these tests run too", allow_module_level=True)
NOXFILE = (ROOT / "noxfile.py").read_text(encoding="utf-8")
NAMING = [*(f".github/workflows/{name}.yml" for name in ("tests", "wheels", "docs")), "CONTRIBUTING.md", "README.md"]


@pytest.mark.parametrize("name", NAMING)
def test_every_session_that_is_named_exists(name: str) -> None:
    """Nothing here runs the workflow, so that a wrong name in it would be found after a push."""
    functions = [node for node in ast.parse(NOXFILE).body if isinstance(node, ast.FunctionDef)]
    sessions = {function.name for function in functions if function.decorator_list}
    text = (ROOT / name).read_text(encoding="utf-8")
    lists = re.findall(r"(?:nox [\w -]*-s|session:)((?: \w+)+)", text)
    named = {name for names in lists for name in names.split()}
    assert named
    assert named <= sessions


def test_the_hook_formats_the_files_that_lint_checks() -> None:
    """A file that the hook leaves alone would fail later, in lint."""
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (hook,) = re.findall(r"entry: clang-format.*\n.*\n +files: \\\.\((\S+)\)\$", hooks)
    (endings,) = re.findall(r"^CPP_ENDINGS = (\[.*\])$", NOXFILE, flags=re.MULTILINE)
    assert hook.split("|") == ast.literal_eval(endings)
