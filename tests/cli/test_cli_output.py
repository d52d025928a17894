"""What `clr-native plot` and `values` write into files, terminals and pipes."""

from __future__ import annotations

import errno
import os
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NoReturn

import pytest
from matplotlib.image import imread

from command_line import COMMAND, CYCLIC, refused, run

pytestmark = pytest.mark.usefixtures("empty_folder")

# --- files that are written ---------------------------------------------------------------------------------


def test_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    what = "CyclicSchedule(0.1, 0.5, step_size_up=3), steps"
    assert run(f"plot {CYCLIC} --out a.PNG", capsys) == f"wrote a.PNG: {what} 0 to 23\n"
    assert imread("a.PNG").std() > 0.05
    assert run(f"plot {CYCLIC} --start 2 --steps 40 --out a.svg", capsys) == f"wrote a.svg: {what} 2 to 41\n"
    assert ET.parse("a.svg").getroot().tag.endswith("svg")
    assert {path.name for path in tmp_path.iterdir()} == {"a.PNG", "a.svg"}


@pytest.mark.parametrize("name", ["a.svg", "a.png", ".png"])
def test_the_same_picture_is_the_same_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = []
    for _ in range(2):
        run(f"plot {CYCLIC} --out {name}", capsys)
        made.append(Path(name).read_bytes())
        Path(name).unlink()
    assert made[0] == made[1]
    assert b"dc:date" not in made[0]


@pytest.mark.parametrize("form", ["csv", "json"])
def test_values_into_a_file_are_those_printed(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"values {CYCLIC} --steps 20000 --format {form}"
    printed = run(line, capsys)
    Path("link").symlink_to("real")
    about = "CyclicSchedule(0.1, 0.5, step_size_up=3), steps 0 to 19,999"
    assert run(f"{line} --out link", capsys) == f"wrote link: {about}\n"
    assert Path("real").read_text() == printed
    assert Path("link").is_symlink()


def test_an_old_file_keeps_its_mode_and_a_device_is_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.csv").write_text("old")
    Path("a.csv").chmod(0o640)
    run(f"values {CYCLIC} --steps 1 --out a.csv", capsys)
    assert Path("a.csv").read_text() == "step,lr,momentum\n0,0.1,0.9\n"
    assert Path("a.csv").stat().st_mode & 0o777 == 0o640
    assert run(f"values {CYCLIC} --out {os.devnull}", capsys) == ""  # it might be what is printed
    assert not Path(os.devnull).is_file()


FAILING = f"{CYCLIC} --step-size-up 2000 --mode exp_range --gamma 1.0002"  # momentum falls below 0 at step 11,000


@pytest.mark.parametrize("command", ["plot --out a.svg", "values --out a.svg"])
def test_what_fails_half_way_leaves_the_old_file(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.svg").write_text("old")
    assert " momentum=-" in refused(f"{command} {FAILING}", capsys)
    assert Path("a.svg").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.svg"]


def test_a_disk_that_fills_up_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def replace(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    expected = "clr-native values cyclic: --out a cannot be written (No space left on device): name another file"
    assert refused(f"values {CYCLIC} --out a", capsys) == expected
    assert list(tmp_path.iterdir()) == []


# --- what is printed ----------------------------------------------------------------------------------------


def test_a_plot_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(f"plot {CYCLIC}", capsys).splitlines()
    assert len(lines) == 23
    assert all(len(line) <= 80 for line in lines)
    assert lines[0].strip() == "learning rate"
    assert "      0.5┤" in "\n".join(lines)
    assert "momentum" in [line.strip() for line in lines]
    assert "\x1b" not in "".join(lines)


def test_a_plot_without_momentum_is_one_panel(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(f"plot {CYCLIC} --no-cycle-momentum", capsys).splitlines()
    assert len(lines) == 23
    assert "momentum" not in "".join(lines)


@pytest.mark.parametrize("options", ["--base-lr 0 --max-lr 0", "--base-lr 0.1 --max-lr 0.1 --steps 1"])
def test_a_constant_can_be_drawn(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "learning rate" in run(f"plot cyclic {options}", capsys)


@pytest.mark.parametrize(("columns", "lines", "width", "height"), [(120, 40, 120, 39), (3, 2, 40, 12)])
def test_the_size_of_the_terminal(
    columns: int,
    lines: int,
    width: int,
    height: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(lines))
    printed = run(f"plot {CYCLIC}", capsys).splitlines()
    assert len(printed) == height
    assert max(map(len, printed)) == width


@pytest.mark.slow
def test_a_stream_that_knows_only_ascii() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run([*COMMAND, *f"plot {CYCLIC}".split()], capture_output=True, env=environment, check=True)
    printed = ran.stdout.decode("ascii")
    assert "*" in printed
    assert "+--" in printed


@pytest.mark.slow
@pytest.mark.parametrize(("no_color", "colored"), [(None, True), ("1", False)])
def test_colours_are_for_terminals(no_color: str | None, colored: bool) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"} | ({} if no_color is None else {"NO_COLOR": no_color})
    pty = pytest.importorskip("pty", reason="terminals of this kind are a matter of Unix")
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*COMMAND, *f"plot {CYCLIC}".split()], stdout=theirs, env=environment)
    os.close(theirs)
    printed = b""
    while True:
        try:
            some = os.read(ours, 4096)
        except OSError:  # Linux's end of a terminal
            break
        if not some:
            break
        printed += some
    os.close(ours)
    assert process.wait(60) == 0
    assert (b"\x1b[" in printed) == colored


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_command_without_a_word() -> None:
    process = subprocess.Popen(
        [*COMMAND, *f"values {CYCLIC} --steps 1000000000".split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "step,lr,momentum\n"
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without space, which Linux has")
@pytest.mark.parametrize("steps", [1, 100_000])
def test_output_that_cannot_be_written_is_one_line(steps: int) -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [*COMMAND, *f"values {CYCLIC} --steps {steps}".split()], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (ran.returncode, ran.stderr) == (2, "clr-native: cannot print (No space left on device)\n")
