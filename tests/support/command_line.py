"""Helpers of the tests of the command line."""

from __future__ import annotations

import sys

import pytest

from clr_native.cli import main

# The command in a process of its own.
COMMAND = [sys.executable, "-W", "error::ResourceWarning", "-c", "from clr_native.cli import main; exit(main())"]
CYCLIC = "cyclic --base-lr 0.1 --max-lr 0.5 --step-size-up 3"


def run(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command and returns what it prints."""
    assert main(line.split()) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def refused(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command that must fail, and returns its one line of error."""
    assert main(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("\n")
    assert printed.err.count("\n") == 1
    return printed.err[:-1]
