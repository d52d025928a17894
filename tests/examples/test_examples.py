"""Every script of examples/ runs as it stands, and so do the notebook's cells one after another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted([*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.ipynb")])


def code_of(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")


def run(code: str, folder: Path) -> str:
    """What the code prints; its own assertions, and warnings, are failures."""
    script = folder / "example.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_example_runs_and_ends_well(file: Path, tmp_path: Path) -> None:
    code = code_of(file)
    assert "assert " in code
    assert run(code, tmp_path)


@pytest.mark.slow
def test_an_example_that_learns_nothing_fails(tmp_path: Path) -> None:
    code = code_of(EXAMPLES / "plain.py").replace("base_lr=0.01,", "base_lr=0.0,").replace("max_lr=0.3,", "max_lr=0.0,")
    with pytest.raises(AssertionError, match=r"assert accuracy > 0\.94"):
        run(code, tmp_path)
