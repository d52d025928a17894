"""Schedules by options of `clr-native plot`, `values` and `summary`: what is understood, and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clr_native import CyclicSchedule, OneCycleSchedule, RampSchedule
from clr_native.cli import main
from clr_native.cli.schedule_arguments import FUNCTIONS, KINDS
from clr_native.schedules import Schedule
from command_line import CYCLIC, refused, run

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.mark.parametrize(
    ("options", "schedule", "steps"),
    [
        (
            "cyclic --base-lr 0.001 --max-lr 0.006 --step-size-up 7 --mode triangular2 --window hann",
            CyclicSchedule(0.001, 0.006, step_size_up=7, mode="triangular2", window="hann"),
            4 * 14,
        ),
        (
            "cyclic --base-lr 1e-3 --max-lr 1 --step-size-up 2e0 --step-size-down 3 --mode linear_range --decay-steps 9"
            " --decay-base --no-cycle-momentum",
            CyclicSchedule(
                0.001,
                1.0,
                step_size_up=2,
                step_size_down=3,
                mode="linear_range",
                decay_steps=9,
                decay_base=True,
                cycle_momentum=False,
            ),
            4 * 5,
        ),
        (
            "cyclic --base-lr 0 --max-lr 1 --mode exp_range --gamma 0.999 --base-momentum 0.7 --max-momentum 0.8",
            CyclicSchedule(0.0, 1.0, mode="exp_range", gamma=0.999, base_momentum=0.7, max_momentum=0.8),
            16_000,
        ),
        ("one-cycle --max-lr 0.1 --total-steps 50", OneCycleSchedule(0.1, 50), 50),
        ("one-cycle --max-lr 0.1 --epochs 10 --steps-per-epoch 5", OneCycleSchedule(0.1, 50), 50),
        (
            "one-cycle --max-lr 0.1 --total-steps 50 --convention fastai --pct-start 0.4 --anneal-strategy linear"
            " --div-factor 10 --final-div-factor 100 --three-phase",
            OneCycleSchedule(
                0.1,
                50,
                convention="fastai",
                pct_start=0.4,
                anneal_strategy="linear",
                div_factor=10.0,
                final_div_factor=100.0,
                three_phase=True,
            ),
            50,
        ),
        (
            "ramp --start-lr 0.01 --end-lr 1 --num-steps 8 --ramp exponential --momentum 0.9",
            RampSchedule(0.01, 1.0, 8, ramp="exponential", momentum=0.9),
            9,
        ),
    ],
)
def test_options_are_the_arguments(
    options: str, schedule: Schedule, steps: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(csv.DictReader(io.StringIO(run(f"values {options}", capsys))))
    assert list(rows[0]) == ["step", "lr", "momentum"]
    lr, momentum = schedule.values(steps)
    assert [int(row["step"]) for row in rows] == list(range(steps))
    assert [float(row["lr"]) for row in rows] == lr.tolist()
    given = np.array([float(row["momentum"] or "nan") for row in rows])
    assert np.array_equal(given, momentum, equal_nan=True)
    records = json.loads(run(f"values {options} --format json", capsys))
    assert [record["lr"] for record in records] == lr.tolist()
    assert records[0]["momentum"] == (None if np.isnan(momentum[0]) else momentum[0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_an_option_with_help(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["plot", kind, "--help"])
    assert stop.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    _, _, options = printed.partition("arguments of ")
    for name in KINDS[kind]._init_only:
        assert f" --{name.replace('_', '-')} N " in options
    options, *_ = re.split(r" (?=With )", options)  # where the formulas begin
    for field in dataclasses.fields(KINDS[kind]):  # type: ignore[arg-type]  # the kinds are dataclasses
        option = f" --{field.name.replace('_', '-')}"
        assert (f"{option} " in options or f"{option}, " in options) == (field.name not in FUNCTIONS)
        if isinstance(field.default, str) and field.name not in FUNCTIONS:
            assert f"{option} {{" in options, "a text has its choices shown"
    for words in (" = ", "(default ", "an int or whole float from 1 to 2**53 - 1"):
        assert words in printed
    assert "``" not in printed
    assert "scale_" not in printed


@pytest.mark.slow
def test_without_docstrings_there_are_still_options() -> None:
    code = "from clr_native.cli import main; main(['plot', 'cyclic', '--help'])"
    shown = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--base-lr" in shown
    assert "lr       = base_lr" not in shown


@pytest.mark.parametrize("command", ["plot", "values", "summary"])
def test_the_help_of_a_command_shows_a_toml_file_that_works(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    shown = "\n".join(line[2:] for line in lines if line.startswith("  ") and ("[" in line[:4] or " = " in line))
    Path("a.toml").write_text(shown)
    assert run("values --toml a.toml --steps 2", capsys).splitlines()[1:] == [
        "warm,0,0.0,",
        "warm,1,0.0002,",
        "run,0,0.0,",
        "run,1,0.0002,",
    ]


def test_options_may_stand_before_the_kind(capsys: pytest.CaptureFixture[str]) -> None:
    expected = "step,lr,momentum\n3,0.5,0.8\n5,0.23333333333333334,0.8666666666666667\n"
    assert run(f"values --start 3 --steps 4 --every 2 {CYCLIC}", capsys) == expected
    assert run(f"values {CYCLIC} --start 3 --steps 4 --every 2", capsys) == expected
    assert run(f"values --start 3 {CYCLIC} --every 2 --steps 4", capsys) == expected


# --- requests that cannot be met ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("plot", "plot: which schedule? cyclic, one-cycle or ramp with its arguments, or --toml FILE.toml"),
        ("plot cyclic", "plot cyclic: the following arguments are required: --base-lr, --max-lr"),
        (
            "plot cyclic --base-lr 0.001 --max-lr 0.0001",
            "plot cyclic: --base-lr 0.001 must not be above --max-lr 0.0001",
        ),
        ("values cyclic --base-lr x --max-lr 1", "values cyclic: --base-lr x must be a number"),
        ("values cyclic --base-lr -1 --max-lr 1", "values cyclic: --base-lr -1 must be 0 or from 1e-270"),
        ("values cyclic --base-lr nan --max-lr 1", "values cyclic: --base-lr nan must be 0 or from 1e-270"),
        (
            f"values {CYCLIC} --mode x",
            "values cyclic: --mode x must be one of 'triangular', 'triangular2', 'exp_range',",
        ),
        (
            f"values {CYCLIC} --step-size-down 1.5",
            "values cyclic: --step-size-down 1.5 must be a whole number of steps from 1 to 2**53 - 1",
        ),
        (
            "summary one-cycle --max-lr 1 --total-steps 9 --pct-start 2",
            "summary one-cycle: --pct-start 2 must be from 0 to 1",
        ),
        (
            "values ramp --start-lr 0 --end-lr 1 --num-steps 9 --ramp exponential",
            "values ramp: --start-lr 0 must be above 0 with --ramp exponential",
        ),
        (f"plot {CYCLIC} --steps 0", "plot cyclic: --steps 0 must be at least 1"),
        (f"plot {CYCLIC} --steps x", "plot cyclic: --steps x must be a whole number"),
        (f"plot {CYCLIC} --start -1", "plot cyclic: --start -1 must be at least 0"),
        (
            f"values {CYCLIC} --start 24",
            "values cyclic: --start 24 must be less than the 24 steps of the schedule, or --steps be given",
        ),
        (
            f"values {CYCLIC} --start {2**63 - 3} --steps 3",
            "values cyclic: --steps 3 must not lead beyond step 2**63 - 2",
        ),
        (f"values {CYCLIC} --every 0", "values cyclic: --every 0 must be at least 1"),
        (f"values {CYCLIC} --format xml", "values cyclic: --format xml must be csv or json"),
        (f"plot {CYCLIC} --out a.pdf", "plot cyclic: --out a.pdf must end in .png or .svg"),
        *(
            (
                f"{command} {CYCLIC} --out no/a.svg",
                f"{command} cyclic: --out no/a.svg cannot be written (No such file or directory): make",
            )
            for command in ("plot", "values")
        ),
        (f"values {CYCLIC} --out .", "values cyclic: --out . cannot be written (Is a directory): name another"),
        *(
            (
                f"{command} {CYCLIC} --mode exp_range --gamma 3",
                f"{command} cyclic: the schedule at step=3 gives lr=10.9",
            )
            for command in ("plot", "values")
        ),
        ("plot sequence", "plot: unrecognised sequence: cyclic, one-cycle or ramp"),
        (f"plot --toml a.toml {CYCLIC}", "plot cyclic: --toml a.toml and cyclic must not both be given"),
        (f"summary {CYCLIC} --epochs 3", "summary cyclic: --steps-per-epoch must be given"),
        (
            "plot cyclic --base-lr 0 --max-lr 1 --step-size-up 9007199254740991",
            f"plot cyclic: --steps {8 * (2**53 - 1)} must be at most {2**32} for a picture",
        ),
        (
            f"summary {CYCLIC} --steps-per-epoch {2**53} --epochs 1",
            f"summary cyclic: --steps-per-epoch {2**53} must be at most {2**53 - 1}",
        ),
        (
            "values one-cycle --max-lr 1",
            "values one-cycle: --total-steps must be given, or --epochs and --steps-per-epoch",
        ),
        (
            "summary one-cycle --max-lr 1 --epochs 3",
            "summary one-cycle: --steps-per-epoch must be given with --epochs 3",
        ),
        (f"summary {CYCLIC} --epochs 0", "summary cyclic: --epochs 0 must be at least 1"),
    ],
)
def test_a_bad_request_is_one_line_and_writes_nothing(
    line: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(line, capsys).startswith(f"clr-native {words}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "package", "line"),
    [
        ("plotext", "plotext", f"plot {CYCLIC}"),
        ("matplotlib.figure", "matplotlib", f"plot {CYCLIC} --out a.png"),
    ],
)
def test_a_missing_extra_is_named(
    module: str,
    package: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    said = refused(line, capsys)
    assert said.startswith(f"clr-native plot cyclic: {package} cannot be imported (")
    assert said.endswith('): pip install "clr-native[plot]"')
    assert list(tmp_path.iterdir()) == []
