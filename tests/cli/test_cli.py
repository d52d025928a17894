"""The `clr-native` command: what it prints, what it refuses, and what it leaves alone."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

import pytest

import clr_native
from clr_native.cli import main

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The demo replaced by a list of what it was called with."""
    from clr_native.demo import command

    recorded: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr(command, "run", lambda *args, **named: recorded.append((args, named)))
    return recorded


def test_the_installed_command_is_main() -> None:
    (script,) = entry_points(group="console_scripts", name="clr-native")
    assert script.load() is main


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"clr-native {clr_native.__version__}\n"


def test_info_as_json_is_build_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == clr_native.build_info()


def test_info_prints_a_line_a_fact(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    build = {
        "version": "1.2.3",
        "isa": {"compiled": ["baseline", "avx2"], "selected": "avx2"},
        "cuda": {"available": False, "reason": "no driver"},
    }
    monkeypatch.setattr(clr_native, "build_info", lambda: build)
    assert main(["info"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "version         1.2.3",
        "isa compiled    baseline, avx2",
        "isa selected    avx2",
        "cuda available  no",
        "cuda reason     no driver",
    ]


@pytest.mark.slow
def test_the_command_is_light_to_import() -> None:
    code = (
        "import sys, clr_native.cli; "
        "print([m for m in ('matplotlib', 'plotext', 'rich', 'sklearn', 'clr_native.demo') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--epochs 0", "--epochs 0 must be at least 1"),
        ("--epochs -3", "--epochs -3 must be at least 1"),
        ("--epochs 1.5", "--epochs 1.5 must be a whole number"),
        ("--epochs", "--epochs must be followed by a value: --epochs N"),
        ("--seed -1", "--seed -1 must be at least 0"),
        ("--seed 4294967296", "--seed 4294967296 must be at most 4294967295"),
        ("--threads 0", "--threads 0 must be at least 1"),
        ("--threads 9999", "--threads 9999 must be at most 1024"),
        ("--data cifar", "--data cifar must be mnist or digits"),
        ("--out a.pdf", "--out a.pdf must end in .png"),
        ("--out no/a.png", "--out no/a.png cannot be written (No such file or directory): make the folder no first"),
        ("--json .", "--json . cannot be written (Is a directory): name another file"),
        ("--out a.png --json ./a.png", "--json a.png must be another file than --out"),
        ("--bounds found", "--bounds found must be tuned or auto"),
        ("--repeats 3", "unrecognised --repeats; `clr-native demo --help` lists the options"),
    ],
)
def test_a_bad_request_is_one_line_and_writes_nothing(
    arguments: str,
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    calls: list[object],
) -> None:
    assert main(["demo", *arguments.split()]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"clr-native demo: {line}\n")
    assert calls == []
    assert list(tmp_path.iterdir()) == []


def test_a_line_break_in_an_argument_stays_in_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--data", "a\nb"]) == 2
    assert capsys.readouterr().err == "clr-native demo: --data 'a b' must be mnist or digits\n"


def test_no_command_is_a_bad_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err == "clr-native: which command? info, demo, find, plot, values or summary\n"


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("sklearn", "scikit-learn"),
        ("mlxtend", "mlxtend"),
        ("rich", "rich"),
        ("matplotlib", "matplotlib"),
    ],
)
def test_a_missing_extra_is_named(
    module: str,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: list[object],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"clr-native demo: {package} cannot be imported (")
    assert line.endswith('): pip install "clr-native[demo]"')
    assert calls == []
    assert list(tmp_path.iterdir()) == []


def test_the_small_digits_do_without_mlxtend(monkeypatch: pytest.MonkeyPatch, calls: list[object]) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    assert main(["demo", "--data", "digits"]) == 0
    assert len(calls) == 1


def test_the_demo_gets_its_options(calls: list[object]) -> None:
    assert main(["demo"]) == 0
    options = "--data digits --epochs 3 --seed 7 --threads 1 --out A.PNG --json r.json --bounds auto --no-compare"
    assert main(["demo", *options.split()]) == 0
    default = {"epochs": 12, "seed": 0, "threads": None, "compare": True, "bounds": "tuned", "json": None}
    chosen = {"epochs": 3, "seed": 7, "threads": 1, "compare": False, "bounds": "auto", "json": Path("r.json")}
    assert calls == [
        (("mnist",), default | {"png": Path("clr-native-demo.png")}),
        (("digits",), chosen | {"png": Path("A.PNG")}),
    ]


def test_checking_the_files_changes_none(tmp_path: Path, calls: list[object]) -> None:
    old = tmp_path / "old.png"
    old.write_bytes(b"old")
    link = tmp_path / "link.json"
    link.symlink_to("target.json")
    assert main(["demo", "--out", str(old), "--json", str(link)]) == 0
    assert old.read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == [link, old]


def test_a_disk_that_fills_up_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from clr_native.demo import command

    def run(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device", "a.png")

    monkeypatch.setattr(command, "run", run)
    assert main(["demo"]) == 2
    assert (
        capsys.readouterr().err
        == "clr-native demo: --out clr-native-demo.png cannot be written (No space left on device): name another file\n"
    )


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from clr_native.demo import command

    def run(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", run)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "clr-native: interrupted\n"
