"""The rules of the range test pick the very points that fastai 2.8 picks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clr_native.range_test.suggest import RULES, minimum, slide, steep, valley
from golden.curves import EDGE_CASES, RANDOM_CURVES, curves

ANSWERS = json.loads((Path(__file__).parents[1] / "golden" / "suggestions.json").read_text(encoding="utf-8"))

# Where fastai raises, so do we, saying why: there are no two points (or none 15 apart) to compare.
FEWEST = {"steep": 2, "slide": 16}


@pytest.mark.parametrize("rule", RULES)
def test_the_index_is_fastais(rule: str) -> None:
    seen = 0
    for name, lr, loss in curves():
        expected = ANSWERS[name][rule]
        if isinstance(expected, str):
            assert len(lr) < FEWEST[rule], name
            with pytest.raises(ValueError, match=f"needs at least {FEWEST[rule]}"):
                RULES[rule](lr, loss)
        else:
            assert RULES[rule](lr, loss) == expected, name
            seen += 1
    assert seen > 850
    assert len(ANSWERS) == RANDOM_CURVES + len(EDGE_CASES) + 1


@pytest.mark.parametrize("rule", RULES)
def test_answers_differ_from_curve_to_curve(rule: str) -> None:
    """A rule that always says the same would not do."""
    assert len({answer[rule] for name, answer in ANSWERS.items() if name.startswith("random")}) > 40


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite_are_refused(rule: str, bad: float) -> None:
    """fastai lets them into comparisons, where the answer is by chance."""
    loss = np.linspace(2.0, 1.0, 30)
    loss[7] = bad
    with pytest.raises(ValueError, match="must be finite"):
        RULES[rule](np.geomspace(1e-5, 1.0, 30), loss)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"lr of shape=\(3,\) and loss of shape=\(4,\)"):
        steep(np.ones(3), np.ones(4))


@pytest.mark.parametrize("rule", [valley, minimum])
def test_no_points(rule: object) -> None:
    with pytest.raises(ValueError, match="0 points"):
        rule(np.ones(0), np.ones(0))  # type: ignore[operator]  # both are rules


def test_a_linear_ramp_may_start_at_0() -> None:
    lr = np.linspace(0.0, 1.0, 20)
    assert steep(lr, 1.0 - lr) == 18  # per log lr the last step is the steepest
    assert slide(lr, 1.0 - lr) == 4
