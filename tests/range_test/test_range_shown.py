"""How a result shows itself: in a few lines, in a notebook, and as a picture in which the descent is seen."""

from __future__ import annotations

import base64
import builtins
import math
import warnings
from typing import Any

import numpy as np
import pytest

from clr_native import FusedCyclicSGD, RangeTestResult, lr_range_test
from clr_native.schedules.evaluate import FloatArray
from range_helpers import batches, mse, network

LR = np.geomspace(1e-6, 10.0, 120)
CLEAN = 2.3 - 1.8 / (1.0 + (0.01 / LR) ** 1.2)
NOISE = np.random.default_rng(0).standard_normal(120)
CURVES = {
    "clean": CLEAN,
    "noisy": CLEAN + 0.3 * NOISE,
    "diverging": CLEAN + 5.0 * np.exp(3.0 * np.log10(LR / 0.3)) + np.where(LR > 1.0, 1e6, 0.0),
    "flat": 2.3 + 0.05 * NOISE,
    "zero": np.zeros(120),
}


def result(losses: FloatArray, **changes: Any) -> RangeTestResult:
    rows = np.atleast_2d(losses)
    lr = LR[: rows.shape[1]]
    fields = {"val_losses": None, "metrics": None, "stopped": "the end of the ramp, lr=10"}
    return RangeTestResult(lr, lr[None], rows, **(fields | changes))


EMPTY = result(np.empty((1, 0)))


@pytest.mark.parametrize("name", CURVES)
def test_printed_it_has_the_bounds_or_the_reason(name: str) -> None:
    shown = result(CURVES[name])
    lines = str(shown).splitlines()
    assert 4 <= len(lines) <= 5
    assert lines[0] == "LR range test: 120 steps, lr 1e-06 to 10"
    assert lines[1].startswith(f"loss: {CURVES[name][0]:.4g} at first, best {CURVES[name].min():.4g} at lr ")
    if name in {"flat", "zero"}:
        assert lines[2].startswith("no bounds: the loss is flat")
    else:
        bounds = shown.bounds()
        assert lines[2] == f"bounds: base_lr={bounds.base_lr:.3g}, max_lr={bounds.max_lr:.3g}"
    assert lines[-1] == "stopped at the end of the ramp, lr=10"


def test_printed_it_speaks_of_repetitions_and_of_what_was_judged() -> None:
    noisy = result(np.array([CLEAN + 0.01 * NOISE, CLEAN - 0.01 * NOISE]))
    assert "120 steps, lr 1e-06 to 10, 2 times" in str(noisy)
    assert "of single repetitions: base_lr " in str(noisy)
    sparse = np.where(np.arange(120) % 2 == 1, CLEAN, np.nan)[None]
    assert "\nvalidation loss: 2.3 at first, best 0.5005 at lr 10, 0.5005 at last\n" in str(
        result(CLEAN, val_losses=sparse)
    )
    assert "\nmetric: -2.3 at first, best -0.5005 at lr 10," in str(result(CLEAN, metrics=-sparse))
    assert "\nmetric was never taken\n" in str(result(CLEAN, metrics=sparse * math.nan))


def test_repr_is_short_and_fits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RangeTestResult, "bounds", None)
    sizes = "steps=120, repetitions=1, groups=1, lr=1e-06 to 10"
    assert repr(result(CLEAN)) == f"RangeTestResult({sizes}, stopped='the end of the ramp, lr=10')"
    assert "steps=0, repetitions=1, groups=1, lr=none" in repr(EMPTY)


def test_in_a_notebook_it_is_lines_and_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, curve in CURVES.items():
        shown = result(curve, stopped="loss=inf <script>")._repr_html_()
        assert "no bounds: the loss is flat" in shown or "bounds: base_lr=" in shown, name
        assert "&lt;script&gt;" in shown
        picture = base64.b64decode(shown.partition("base64,")[2].partition('"')[0])
        assert picture.startswith(b"\x89PNG")
    assert EMPTY._repr_html_().count("<img") == 0
    assert "0 points of the loss are too few" in EMPTY._repr_html_()

    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "clr_native.range_test.plot":
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    whole = result(CLEAN)
    assert whole._repr_html_() == f"<pre>{whole}</pre>"


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("of_metric", [False, True])
def test_the_picture_shows_the_descent(name: str, of_metric: bool) -> None:
    curve = CURVES[name]
    ax = result(curve, metrics=-curve[None] if of_metric else None).plot()
    low, high = sorted((-each for each in ax.get_ylim()) if of_metric else ax.get_ylim())
    first, best = float(np.median(curve[:5])), float(curve.min())
    assert low < best <= first < high or name == "zero"
    assert high - first < 1.01 * (first - best) or name == "zero"
    assert ax.get_title() == "learning rate range test"
    legend = ax.get_legend()
    assert legend is not None
    words = [text.get_text() for text in legend.get_texts()]
    for meaning in ("the steepest fall", "a tenth of the lowest point's", "inside the longest descent"):
        assert sum(meaning in each for each in words) == 1
    marks = [line for line in ax.get_lines() if len(line.get_xdata()) == 1]  # type: ignore[arg-type]  # a sequence
    bottom, top = sorted(ax.get_ylim())
    assert len(marks) == 4
    assert all(bottom <= float(np.asarray(mark.get_ydata())[0]) <= top for mark in marks)


def test_a_result_without_points_is_drawn() -> None:
    assert any("too few" in text.get_text() for text in EMPTY.plot().texts)


def test_fused_cyclic_sgd_stays_silent() -> None:
    """Also over more updates in a row than it takes for a remark, and without any gradient."""
    for step_fn in (None, lambda batch: batch[0].sum().requires_grad_()):
        model = network()
        optimizer = FusedCyclicSGD(model.parameters(), base_lr=0.001, max_lr=0.1)
        loss = mse if step_fn is None else None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            lr_range_test(model, optimizer, loss, batches(), step_fn=step_fn, num_steps=30)
