"""`clr-native find`, and a demo that takes its bounds from a range test."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from clr_native import RangeTestResult
from clr_native.demo import find
from clr_native.demo.data import load
from clr_native.demo.training import Run
from command_line import refused, run


@pytest.fixture(autouse=True)
def one_thread(own_threads: None, empty_folder: None) -> None:
    torch.set_num_threads(1)


def test_find_prints_the_table_and_writes_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run("find --data digits --seed 1 --threads 1 --repeats 2 --out a.png --json r.json", capsys)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "r.json"}
    assert imread("a.png").std() > 0.05
    result = RangeTestResult.load("r.json")
    assert result.losses.shape[0] == 2
    lines = [line.split() for line in printed.splitlines()]
    for method in ("valley", "steep", "slide", "minimum"):
        assert [method, f"{result.suggest(method):.2e}"] in lines
    bounds = result.bounds()
    for name, value in (("base_lr", bounds.base_lr), ("max_lr", bounds.max_lr)):
        assert any(line[:2] == [name, f"{value:.2e}"] for line in lines)
    assert f"stopped at {result.stopped}" in printed
    assert 0.001 < bounds.base_lr < bounds.max_lr < 0.5


@pytest.mark.slow
def test_the_seed_decides_what_is_found() -> None:
    digits = load("digits")
    first, again, other = (find.range_test(digits, seed, 1) for seed in (3, 3, 4))
    assert first.to_dict() == again.to_dict() != other.to_dict()


@pytest.mark.slow
def test_the_demo_cycles_between_the_bounds_that_were_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from clr_native.demo import figure

    drawn: list[Run] = []
    monkeypatch.setattr(figure, "save", lambda path, title, runs: drawn.extend(runs))
    printed = run("demo --data digits --epochs 3 --seed 1 --threads 1 --bounds auto", capsys)
    bounds, _ = find.found_bounds(load("digits"), 1, repeats=3)
    assert f"LR range test: base_lr {bounds.base_lr:.3g}, max_lr {bounds.max_lr:.3g}" in printed
    assert len(drawn) == 2
    for each in drawn:
        assert min(each.lr) == bounds.base_lr
        assert max(each.lr) == pytest.approx(bounds.max_lr, rel=1e-12)  # torch's peak misses by ulps
    assert "largest difference of any weight: 0 " in printed


@pytest.mark.parametrize("line", ["find --data digits", "demo --data digits --bounds auto"])
def test_no_answer_is_one_line(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    flat = RangeTestResult(np.geomspace(1e-4, 1, 30), np.ones((1, 30)), np.ones((1, 30)), None, None, "the end")
    monkeypatch.setattr(find, "range_test", lambda *arguments, **named: flat)
    from clr_native.cli import main

    assert main(line.split()) == 2
    assert capsys.readouterr().err.startswith(f"clr-native {line.split()[0]}: no bounds: the loss is flat")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--repeats 0", "--repeats 0 must be at least 1"),
        ("--out a.pdf", "--out a.pdf must end in .png"),
        ("--out no/a.png", "--out no/a.png cannot be written (No such file or directory): make the folder no first"),
        ("--out a.png --json ./a.png", "--json a.png must be another file than --out"),
    ],
)
def test_a_bad_request_is_one_line(options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(f"find --data digits {options}", capsys) == f"clr-native find: {message}"
    assert list(Path().iterdir()) == []


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert refused("find --data digits", capsys).endswith('pip install "clr-native[demo]"')
