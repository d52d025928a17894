"""What a result can do beyond its numbers: files, pictures, and staying out of the way."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from clr_native import RangeTestResult
from helpers import output_of, python_process

LR = np.geomspace(1e-6, 1.0, 60)
LOSS = 2.0 - 1.5 / (1.0 + (0.01 / LR) ** 2)


def result(**changes: object) -> RangeTestResult:
    sparse = np.where(np.arange(60) % 2 == 1, LOSS, np.nan)
    fields: dict[str, object] = {
        "lr": LR,
        "group_lr": np.array([LR, LR / 3.0]),
        "losses": np.array([LOSS, LOSS + 0.1]),
        "val_losses": np.array([sparse, sparse]),
        "metrics": 1.0 - np.array([sparse, sparse]) / 10.0,
        "stopped": "the end of the ramp, lr=1",
    }
    return RangeTestResult(**(fields | changes))  # type: ignore[arg-type]  # as a dict they have no types


def assert_same(one: RangeTestResult, other: RangeTestResult) -> None:
    assert one.stopped == other.stopped
    for name in ("lr", "group_lr", "losses", "val_losses", "metrics"):
        own, their = getattr(one, name), getattr(other, name)
        assert (own is None) == (their is None)
        if own is not None:
            assert own.dtype == their.dtype == np.float64
            assert own.shape == their.shape
            assert own.tobytes() == their.tobytes()


@pytest.mark.parametrize("changes", [{}, {"val_losses": None, "metrics": None}, {"losses": np.ones((1, 60))}])
def test_round_trip_through_a_dict_and_a_file(changes: dict[str, object], tmp_path: Path) -> None:
    before = result(**changes)
    assert_same(RangeTestResult.from_dict(before.to_dict()), before)
    before.save(tmp_path / "r.json")
    assert_same(RangeTestResult.load(tmp_path / "r.json"), before)
    assert "NaN" not in (tmp_path / "r.json").read_text()
    assert json.loads((tmp_path / "r.json").read_text()) == before.to_dict()


def test_a_result_without_points(tmp_path: Path) -> None:
    none = np.empty((1, 0))
    empty = RangeTestResult(none[0], none, none, None, None, "loss=nan is not finite at step 0, lr=1e-06")
    empty.save(tmp_path / "r.json")
    assert_same(RangeTestResult.load(tmp_path / "r.json"), empty)
    with pytest.raises(ValueError, match=r"0 points of the loss are too few.*at: loss=nan is not finite at step 0"):
        empty.bounds()
    for method in ("valley", "steep", "slide", "minimum"):
        with pytest.raises(ValueError, match="needs at least"):
            empty.suggest(method)


@pytest.mark.parametrize("d", [{}, [], {"lr": []}, {**result().to_dict(), "more": 1}], ids=lambda d: str(d)[:10])
def test_what_is_no_result_is_refused(d: object) -> None:
    with pytest.raises(ValueError, match="it is no result of a range test"):
        RangeTestResult.from_dict(d)  # type: ignore[arg-type]  # the point


def test_csv_has_a_line_a_step(tmp_path: Path) -> None:
    whole = result()
    whole.to_csv(tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ["step", "lr", "loss", "smoothed_loss", "val_loss", "metric", "lr_group_0", "lr_group_1"]
    assert list(rows[0]) == columns
    assert len(rows) == 60
    assert whole.val_loss is not None
    for step, row in enumerate(rows):
        assert int(row["step"]) == step
        assert float(row["lr"]) == LR[step]
        assert float(row["loss"]) == whole.loss[step]
        assert float(row["lr_group_1"]) == LR[step] / 3.0
        assert (row["val_loss"] == "") == (step % 2 == 0) == math.isnan(whole.val_loss[step])
    result(val_losses=None, metrics=None).to_csv(tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text().startswith("step,lr,loss,smoothed_loss,lr_group_0,lr_group_1\n")


def test_suggest() -> None:
    whole = result(val_losses=None, metrics=None)
    lowest = LR[np.argmin(whole.smoothed_loss)]
    assert whole.suggest("minimum") == lowest / 10.0
    assert whole.suggest("valley") in LR
    assert whole.suggest("slide") in LR
    with pytest.raises(ValueError, match="method='best' must be one of 'valley', 'steep', 'slide', 'minimum', 'smith'"):
        whole.suggest("best")


@pytest.mark.parametrize("changes", [{}, {"metrics": None}, {"metrics": None, "val_losses": None}])
def test_plot_draws_into_a_figure_of_its_own_or_into_what_it_is_given(
    changes: dict[str, object], tmp_path: Path
) -> None:
    whole = result(**changes)
    ax = whole.plot()
    assert ax.get_xscale() == "log"
    words = " ".join(text.get_text() for text in ax.get_legend().get_texts())  # type: ignore[union-attr]  # there is one
    bounds = whole.bounds()
    assert f"bounds {bounds.base_lr:.2e} to {bounds.max_lr:.2e}" in words
    for method in ("valley", "steep", "slide", "minimum"):
        assert f"{method} {whole.suggest(method):.2e}" in words
    assert isinstance(ax.figure, Figure)
    ax.figure.savefig(tmp_path / "r.png")
    assert (tmp_path / "r.png").stat().st_size > 10_000
    own = Figure().add_subplot()
    assert whole.plot(ax=own) is own


def test_plot_of_a_curve_without_an_answer_says_so() -> None:
    ax = result(losses=np.full((1, 60), 2.0), val_losses=None, metrics=None).plot()
    assert any("the loss is flat" in text.get_text() for text in ax.texts)


def test_a_linear_ramp_is_drawn_linearly() -> None:
    lr = np.linspace(0.0, 1.0, 60)
    assert result(lr=lr, val_losses=None, metrics=None).plot().get_xscale() == "linear"


@pytest.mark.slow
def test_the_test_imports_neither_matplotlib_nor_rich() -> None:
    code = """
import sys, torch
from clr_native import lr_range_test
from range_helpers import batches, mse, network
model = network()
result = lr_range_test(model, torch.optim.SGD(model.parameters(), lr=0.1), mse, batches(), progress=False)
result.suggest("steep")
print([name for name in ("matplotlib", "rich") if name in sys.modules])
"""
    assert output_of(python_process(code)) == "[]\n"
