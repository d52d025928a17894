"""Schedules in TOML files, for `clr-native plot`, `values` and `summary`."""

from __future__ import annotations

import csv
import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from clr_native import CyclicSchedule, OneCycleSchedule, RampSchedule, ScheduleSequence
from clr_native.schedules import Schedule
from command_line import CYCLIC, refused, run

pytestmark = pytest.mark.usefixtures("empty_folder")

TEXTS = {
    "plain": """
[plain]
base_lr = 0.1
max_lr = 0.5
step_size_up = 2
""",
    "one cycle": """
["one cycle"]
kind = "one_cycle"
max_lr = 1
total_steps = 6
""",
    "run": """
[[run]]
n_steps = 2
kind = "ramp"
start_lr = 0
end_lr = 0.5
num_steps = 2

[[run]]
base_lr = 0.5
max_lr = 1
step_size_up = 1
""",
    "nested": """
[nested]
kind = "sequence"

[[nested.segments]]
n_steps = 3
segments = [
    { n_steps = 1, kind = "ramp", start_lr = 0, end_lr = 1, num_steps = 4, momentum = 0.5 },
    { base_lr = 0.1, max_lr = 0.2 },
]

[[nested.segments]]
n_steps = 4
base_lr = 0.1
max_lr = 0.2
cycle_momentum = false
""",
}
RAMP = RampSchedule(0.0, 0.5, 2)
INNER = ScheduleSequence([(RampSchedule(0, 1, 4, momentum=0.5), 1), (CyclicSchedule(0.1, 0.2), None)])
SCHEDULES: dict[str, Schedule] = {
    "plain": CyclicSchedule(0.1, 0.5, step_size_up=2),
    "one cycle": OneCycleSchedule(1, 6),
    "run": ScheduleSequence([(RAMP, 2), (CyclicSchedule(0.5, 1, step_size_up=1), None)]),
    "nested": ScheduleSequence([(INNER, 3), (CyclicSchedule(0.1, 0.2, cycle_momentum=False), 4)]),
}


@pytest.fixture
def file() -> None:
    Path("a.toml").write_text("".join(TEXTS.values()))


def expected_records(steps: range) -> list[dict[str, Any]]:
    return [
        {"schedule": name, "step": step, "lr": value.lr, "momentum": value.momentum}
        for name, schedule in SCHEDULES.items()
        for step in steps
        for value in [schedule(step)]
    ]


def test_values_of_a_file(file: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(run("values --toml a.toml --format json --steps 9", capsys)) == expected_records(range(9))
    rows = list(csv.DictReader(io.StringIO(run("values --toml a.toml --start 2 --steps 9 --every 4", capsys))))
    expected = expected_records(range(2, 11, 4))
    assert rows == [
        {name: "" if value is None else str(value) for name, value in record.items()} for record in expected
    ]


@pytest.mark.parametrize(("only", "steps"), [("plain", 16), ("one cycle", 6), ("run", 10), ("nested", 7)])
def test_the_usual_number_of_steps(only: str, steps: int, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.toml").write_text(TEXTS[only])
    assert len(run("values --toml a.toml", capsys).splitlines()) == 1 + steps


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", " must hold at least one schedule: a table such as [name]"),
        ("x = 1", ": x=1 must be in a table of its own: [name] before it"),
        ("x = [1]", ": [[x]] number 1: 1 must be a table"),
        ("x = []", ": [[x]] must hold at least one table"),
        ("[x]\nbase_lr = 1", ": [x]: max_lr is missing, which CyclicSchedule needs"),
        ("[x]\nkind = 'ramp'", ": [x]: start_lr is missing, which RampSchedule needs"),
        ("[x]\nbase_lr = 0.1\nmax_lr = 0.01", ": [x]: base_lr=0.1 must not be above max_lr=0.01"),
        ("[x]\nbase_lr = '1'\nmax_lr = 1", ": [x]: base_lr='1' must be a number"),
        ("[x]\nbase_lr = 1\nmax_lr = 2\nlr = 1", ": [x]: lr=1 is not a key of a cyclic schedule"),
        ("[x]\nbase_lr = 1\nmax_lr = 2\nn_steps = 1", ": [x]: n_steps=1 must stand in a table of a sequence, [[name]]"),
        ("[x]\nbase_lr = 1\nmax_lr = 2\ndecay_base = 1", ": [x]: decay_base=1 must be true or false"),
        (
            "[x]\nbase_lr = 1\nmax_lr = 2\nscale_fn = true",
            ": [x]: scale_fn=True cannot be given in a file: functions need Python",
        ),
        ("[x]\nkind = 'a'", ": [x]: kind='a' must be one of 'cyclic', 'one_cycle', 'ramp', 'sequence'"),
        ("[x]\nkind = 1", ": [x]: kind=1 must be one of 'cyclic', 'one_cycle', 'ramp', 'sequence'"),
        ("[x]\nkind = 'sequence'", ": [x]: a sequence must have `segments`, an array of tables, and nothing else"),
        (
            "[x]\nbase_lr = 1\nsegments = []",
            ": [x]: a sequence must have `segments`, an array of tables, and nothing else",
        ),
        (
            "[x]\nkind = 'ramp'\nsegments = []",
            ": [x]: a sequence must have `segments`, an array of tables, and nothing else",
        ),
        (
            "[[x]]\nbase_lr = 1\nmax_lr = 2\n[[x]]\nbase_lr = 1\nmax_lr = 2",
            ": [[x]] number 1: n_steps must be a number of steps: only the last has no end",
        ),
        ("[[x]]\nbase_lr = 2\nmax_lr = 1", ": [[x]] number 1: base_lr=2.0 must not be above max_lr=1.0"),
        (
            "[[x.segments]]\nsegments = [{ base_lr = 2, max_lr = 1 }]",
            ": [[x.segments]] number 1, segments number 1: base_lr=2.0 must not be above max_lr=1.0",
        ),
        ("[x", " is not TOML (Expected ']' at the end of a table declaration (at "),
        ("\udcff", " is not text ('utf-8' codec can't decode byte 0xff in position 0"),
    ],
)
@pytest.mark.parametrize("command", ["plot", "values", "summary --epochs 1 --steps-per-epoch 1"])
def test_a_file_that_is_wrong_says_where(
    text: str, words: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert refused(f"{command} --toml a.toml", capsys).startswith(
        f"clr-native {command.split()[0]}: --toml a.toml{words}"
    )


def tables(depth: int) -> str:
    return "".join(f"[[x{'.segments' * i}]]\nn_steps = 9\n" for i in range(1, depth)) + "base_lr = 1\nmax_lr = 2\n"


@pytest.mark.slow
@pytest.mark.parametrize("text", [f"x = {'[' * 3000}{']' * 3000}", tables(700)])
@pytest.mark.parametrize(
    "command", ["plot", "plot --out a.png", "values --out a.csv", "summary --epochs 1 --steps-per-epoch 1"]
)
def test_a_file_nested_too_deeply(text: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.toml").write_text(text)
    assert refused(f"{command} --toml a.toml", capsys) == (
        f"clr-native {command.split()[0]}: --toml a.toml must not nest sequences so deeply: one may hold many tables"
    )
    assert [path.name for path in Path().iterdir()] == ["a.toml"]


def test_files_that_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    start = "clr-native values: --toml "
    assert (
        refused("values --toml no", capsys) == f"{start}no cannot be read (No such file or directory): name a TOML file"
    )
    assert refused("values --toml .", capsys) == f"{start}. cannot be read (Is a directory): name a TOML file"


def test_before_python_311_tomli_reads_files(
    file: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run("values --toml a.toml", capsys)
    reader = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", reader)
    assert run("values --toml a.toml", capsys) == expected
    monkeypatch.setitem(sys.modules, "tomli", None)
    line = refused("values --toml a.toml", capsys)
    assert line.startswith("clr-native values: tomli cannot be imported (")
    assert line.endswith('): pip install "clr-native[plot]"')


def test_curves_without_colours_have_letters(file: None, capsys: pytest.CaptureFixture[str]) -> None:
    first, *others = run("plot --toml a.toml", capsys).splitlines()
    assert first == "* plain  o one cycle  + run  x nested"
    assert all(letter in "".join(others) for letter in "*o+x")


def test_one_cycle_by_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    """In a file, and in a summary, whose run it is then; a schedule of another length may be held against a run."""
    Path("a.toml").write_text("[x]\nkind = 'one_cycle'\nmax_lr = 1\nepochs = 2\nsteps_per_epoch = 3\n")
    assert len(run("values --toml a.toml", capsys).splitlines()) == 1 + 6
    for options, total in (("", 20), ("--total-steps 15", 15)):
        printed = run(f"summary --epochs 5 one-cycle --max-lr 1 {options} --steps-per-epoch 4", capsys)
        assert printed == f"{OneCycleSchedule(1.0, total).summary(4, 5)}\n"


def test_summary(file: None, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--steps-per-epoch 4 --epochs 5"
    schedule = CyclicSchedule(0.1, 0.5, step_size_up=3)
    assert run(f"summary {CYCLIC} {options}", capsys) == f"{schedule.summary(4, 5)}\n"
    expected = "".join(f"{name}: {each.summary(4, 5)}\n" for name, each in SCHEDULES.items())
    assert run(f"summary --toml a.toml {options}", capsys) == expected
