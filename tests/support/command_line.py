"""What the tests of the command line share."""

from __future__ import annotations

import pytest

from clr_native.cli import main

CYCLIC = "cyclic --base-lr 0.1 --max-lr 0.5 --step-size-up 3"


def run(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints."""
    assert main(line.split()) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def refused(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that says why not."""
    assert main(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("\n")
    assert printed.err.count("\n") == 1
    return printed.err[:-1]
