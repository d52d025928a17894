"""Bounds and the steepest point on curves whose answer is known: near it under noise, and none where there is none."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr_native import RangeTestResult
from clr_native.range_test.descent import find_descent, nonnegative_minimum
from clr_native.range_test.smooth import smooth
from clr_native.range_test.stopping import Divergence

FloatArray = npt.NDArray[np.float64]

LR = 10.0 ** np.linspace(-7.0, 1.0, 100)
STEPS_PER_DECADE = 99 / 8


def known(centre: float = 10.0**-2.5, slope: float = 3.0, diverges: float | None = None) -> FloatArray:
    """The curve of the issue; it diverges from 0.2 on, or as far above another centre."""
    above = np.maximum(np.log10(LR / (0.2 * centre / 10.0**-2.5 if diverges is None else diverges)), 0.0)
    losses: FloatArray = 2.3 - 1.6 / (1.0 + np.exp(-slope * np.log10(LR / centre))) + 4.0 * above**2
    return losses


def result_of(losses: FloatArray, lr: FloatArray = LR) -> RangeTestResult:
    """As a range test records them: up to divergence."""
    divergence = Divergence(4.0)
    stops = (step + 1 for step, loss in enumerate(losses.tolist()) if divergence.observe(loss))
    end = next(stops, len(losses))
    return RangeTestResult(lr[:end], lr[None, :end], losses[None, :end], None, None, "the end")


def readings(losses: FloatArray) -> tuple[float, float, float]:
    result = result_of(losses)
    bounds = result.bounds()
    return bounds.base_lr, bounds.max_lr, result.suggest("steep")


def with_noise(clean: FloatArray, noise: float, seeds: int) -> FloatArray:
    """[seeds, 3]: base_lr, max_lr, steep."""
    random = [np.random.default_rng(seed).standard_normal(len(clean)) for seed in range(seeds)]
    return np.array([readings(clean + noise * each) for each in random])


def within_two(values: FloatArray, truth: float) -> float:
    return float(np.mean(np.abs(np.log2(values / truth)) <= 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_the_known_curve(noise: float) -> None:
    """The issue's own demand: 200 seeds; steep always within a factor 2 of the truth, bounds for 95 % of their own."""
    base, most, steep = readings(known())
    assert within_two(np.array([steep]), 3.2e-3) == 1.0
    found = with_noise(known(), noise, 200)
    assert within_two(found[:, 2], 3.2e-3) == 1.0
    assert within_two(found[:, 0], base) >= 0.95
    assert within_two(found[:, 1], most) >= 0.95


# Every seed of `python -m bench.range_test.noise`, whose table stands in docs/range_test.md; here are fewer.
@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.02, 0.1])
@pytest.mark.parametrize("slope", [1.5, 3.0, 8.0])
@pytest.mark.parametrize("centre", [1e-4, 10.0**-2.5, 0.3])
def test_other_slopes_and_centres(centre: float, slope: float, noise: float) -> None:
    base, most, steep = readings(known(centre, slope))
    assert within_two(np.array([steep]), centre) == 1.0
    found = with_noise(known(centre, slope), noise, 20)
    assert within_two(found[:, 2], centre) >= 0.95
    assert within_two(found[:, 0], base) >= 0.95
    assert within_two(found[:, 1], most) >= 0.95


@pytest.mark.parametrize("height", [1e2, 1e6, 1e30])
def test_the_height_of_divergence_does_not_matter(height: float) -> None:
    """A real test's last losses: they jump by orders of magnitude before the running median sees it."""
    losses = known()[:76] + 0.02 * np.random.default_rng(0).standard_normal(76)
    before = readings(losses)
    after = readings(np.append(losses, [height / 100, height, 5 * height]))
    assert after == pytest.approx(before, rel=0.15)
    exploded = np.append(losses, [height] * 9)
    lr = LR[:85]
    of_metric = RangeTestResult(lr, lr[None], exploded[None], None, -exploded[None], "").bounds()
    assert of_metric.max_lr == pytest.approx(before[1], rel=0.15)
    curve = RangeTestResult(LR[:85], LR[None, :85], exploded[None], None, None, "").smoothed_loss
    assert np.abs(curve[:70] - known()[:70]).max() < 0.15


@pytest.mark.parametrize("slope", [3.0, 8.0])
def test_the_quarters_of_a_curve_without_noise(slope: float) -> None:
    """A logistic curve is at a quarter and three quarters where log lr is ln 3 / slope from its centre."""
    base, most, steep = readings(known(slope=slope))
    distance = math.log(3.0) / slope
    step = 1.0 / STEPS_PER_DECADE
    assert math.log10(base / 10**-2.5) == pytest.approx(-distance, abs=step / 2)
    assert math.log10(most / 10**-2.5) == pytest.approx(distance, abs=step / 2)
    assert math.log10(steep / 10**-2.5) == pytest.approx(0.0, abs=step)


@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0.0), (1e6, 0.0), (1.0, -5.0), (1.0, 100.0)])
def test_the_scale_and_the_zero_of_the_loss_do_not_matter(scale: float, shift: float) -> None:
    """Up to where sums of squares round: far below the distance of two steps."""
    losses = known() + 0.02 * np.random.default_rng(0).standard_normal(100)
    lr = LR[:90]
    curves = (losses[:90], losses[:90] * scale + shift)
    one, other = (RangeTestResult(lr, lr[None], curve[None], None, None, "") for curve in curves)
    assert other.bounds().base_lr == pytest.approx(one.bounds().base_lr, rel=1e-3)
    assert other.bounds().max_lr == pytest.approx(one.bounds().max_lr, rel=1e-3)


def test_the_metric_is_read_where_there_is_one_and_else_the_validation_loss() -> None:
    lr = LR[:85]
    rows = {name: known(centre)[None, :85] for name, centre in (("l", 1e-4), ("v", 1e-3), ("m", 1e-2))}
    of_metric = RangeTestResult(lr, lr[None], rows["l"], rows["v"], -rows["m"], "")
    of_validation = RangeTestResult(lr, lr[None], rows["l"], rows["v"], None, "")
    of_loss = RangeTestResult(lr, lr[None], rows["l"], None, None, "")
    for result, centre in ((of_metric, 1e-2), (of_validation, 1e-3), (of_loss, 1e-4)):
        bounds = result.bounds()
        assert centre / 4 < bounds.base_lr < centre < bounds.max_lr < 4 * centre


def test_points_that_were_not_taken_are_bridged() -> None:
    every_third = known()[:85].copy()
    every_third[np.arange(85) % 3 != 2] = np.nan
    lr = LR[:85]
    bounds = RangeTestResult(lr, lr[None], every_third[None], every_third[None], None, "").bounds()
    whole = readings(known())
    assert bounds.base_lr == pytest.approx(whole[0], rel=0.1)
    assert bounds.max_lr == pytest.approx(whole[1], rel=0.1)


def test_a_linear_ramp() -> None:
    """The paper's own: accuracy against a rate that rises linearly, from 0."""
    lr = np.linspace(0.0, 0.02, 100)
    accuracy = 0.1 + 0.6 / (1.0 + np.exp(-(lr - 0.006) * 1000.0)) - np.maximum(lr - 0.014, 0.0) * 20.0
    noisy = accuracy + 0.01 * np.random.default_rng(0).standard_normal(100)
    bounds = RangeTestResult(lr, lr[None], 1.0 - noisy[None], None, noisy[None], "").bounds()
    assert bounds.base_lr == pytest.approx(0.006 - math.log(3) / 1000, rel=0.1)
    assert bounds.max_lr == pytest.approx(0.006 + math.log(3) / 1000, rel=0.1)


def test_ratio() -> None:
    result = result_of(known())
    for ratio in (3, 4, 6):
        assert result.bounds(ratio).max_lr == result.bounds().max_lr
        assert result.bounds(ratio).base_lr == result.bounds().max_lr / ratio
    for bad in (1, 0.5, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"ratio={bad} must be above 1"):
            result.bounds(bad)
    with pytest.raises(TypeError, match="ratio='3' must be a number"):
        result.bounds("3")  # type: ignore[arg-type]  # the point


def test_interval_over_repeats() -> None:
    rows = known()[None, :85] + 0.05 * np.random.default_rng(0).standard_normal((5, 85))
    lr = LR[:85]
    bounds = RangeTestResult(lr, lr[None], rows, None, None, "").bounds()
    singly = [RangeTestResult(lr, lr[None], row[None], None, None, "").bounds() for row in rows]
    assert bounds.base_lr_interval == (min(each.base_lr for each in singly), max(each.base_lr for each in singly))
    assert bounds.max_lr_interval == (min(each.max_lr for each in singly), max(each.max_lr for each in singly))
    assert bounds.base_lr == sorted(each.base_lr for each in singly)[2]
    assert bounds.max_lr == sorted(each.max_lr for each in singly)[2]
    assert singly[0].base_lr_interval is singly[0].max_lr_interval is None
    by_ratio = RangeTestResult(lr, lr[None], rows, None, None, "").bounds(ratio=4)
    assert by_ratio.base_lr == by_ratio.max_lr / 4 == bounds.max_lr / 4


def test_repeats_that_diverge_at_different_rates_are_not_averaged() -> None:
    """The average turns up with the first of them."""
    lr = LR[:95]
    rows = np.array([known(0.01, diverges=at)[:95] for at in (0.03, 0.3, 0.4)])
    alone = RangeTestResult(lr, lr[None], rows[1:2], None, None, "")
    together = RangeTestResult(lr, lr[None], rows, None, None, "")
    assert together.bounds().max_lr == pytest.approx(alone.bounds().max_lr, rel=0.1)
    assert together.suggest("steep") == pytest.approx(alone.suggest("steep"), rel=0.1)
    averaged = RangeTestResult(lr, lr[None], rows.mean(axis=0)[None], None, None, "")
    assert averaged.bounds().max_lr < 0.8 * alone.bounds().max_lr


def test_where_most_repeats_have_no_answer_their_average_is_read() -> None:
    lr = LR[:85]
    rows = known()[None, :85] + 0.05 * np.random.default_rng(0).standard_normal((5, 85))
    rows[1:] = 2.3 + 0.05 * np.random.default_rng(1).standard_normal((4, 85))  # flat
    bounds = RangeTestResult(lr, lr[None], rows, None, None, "").bounds()
    assert bounds.max_lr_interval is None
    averaged = RangeTestResult(lr, lr[None], rows.mean(axis=0)[None], None, None, "").bounds()
    assert bounds.max_lr == pytest.approx(averaged.max_lr, rel=0.1)  # what is capped first differs


FLAT = np.full(100, 2.3)
NO_ANSWER = {
    "flat": (FLAT, "the loss is flat"),
    "flat, rising a little": (FLAT + 1e-9 * np.arange(100.0), "the loss is flat"),
    "never falls": (2.3 + np.maximum(np.log10(LR / 0.01), 0.0) ** 2, "never falls, it only gets worse"),
    "diverges at once": (2.3 + 0.1 * np.arange(100.0) ** 2, "never falls, it only gets worse"),
    "still falling": (
        2.3 - 20.0 / (1.0 + np.exp(-3.0 * (np.log10(LR) - 1.6))),
        "ever faster up to the end of the test",
    ),
    "falls at once": (2.3 - 1.6 * (1.0 - np.exp(-np.arange(100.0) / 12.0)), "fastest at the first rates"),
    "dies": (np.where(LR < 1e-2, 2.3, 4.0), "never falls, it only gets worse"),
    "too few": (known()[:7], "7 points of the loss are too few"),
}


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("name", NO_ANSWER)
def test_no_answer_is_said_and_not_invented(name: str, noise: float) -> None:
    losses, words = NO_ANSWER[name]
    if name == "flat, rising a little" and noise == 0.0:
        words = "flat|only gets worse"
    for seed in range(25 if noise else 1):
        drawn = losses + noise * np.random.default_rng(seed).standard_normal(len(losses))
        with pytest.raises(ValueError, match=words):
            result_of(drawn, LR[: len(losses)]).bounds()


def test_falling_at_once_is_no_matter_with_a_ratio() -> None:
    losses, _ = NO_ANSWER["falls at once"]
    bounds = result_of(losses).bounds(ratio=3)
    assert bounds.base_lr == bounds.max_lr / 3


def test_no_fall_is_found_in_noise() -> None:
    """Curves of pure noise: at most one in a hundred may pass for a descent."""
    passed = 0
    for count in (12, 30, 100):
        for seed in range(100):
            losses = np.random.default_rng(seed).standard_normal(count)
            lr = np.geomspace(1e-5, 1.0, count)
            try:
                RangeTestResult(lr, lr[None], losses[None], None, None, "").bounds()
            except ValueError:
                continue
            passed += 1
    assert passed <= 3


# --- the parts -------------------------------------------------------------------------------------------------------


def test_the_smoother_has_no_lag() -> None:
    """A symmetric bump stays where it is, a straight line what it is, and noise goes."""
    place = np.arange(120.0)
    bump = np.exp(-(((place - 60.0) / 12.0) ** 2))
    smoothed = smooth(bump + 0.1 * np.random.default_rng(0).standard_normal(120)).curve
    assert abs(int(np.argmax(smoothed)) - 60) <= 3
    assert np.abs(smoothed - bump).max() < 0.15
    assert float(np.std(smoothed - bump)) < 0.05
    line = 3.0 - 0.25 * place
    assert smooth(line).curve == pytest.approx(
        line, abs=1e-5
    )  # of the numbers' size, for what keeps sparse points apart
    noisy_line = line + 0.1 * np.random.default_rng(1).standard_normal(120)
    assert smooth(noisy_line).noise_variance == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 9])
def test_the_smoother_takes_few_points(count: int) -> None:
    values = np.linspace(1.0, 2.0, count)
    assert smooth(values).curve == pytest.approx(values, abs=1e-5)


def test_the_fit_bends_down_then_up() -> None:
    for seed in range(5):
        losses = known()[:80] + 0.2 * np.random.default_rng(seed).standard_normal(80)
        curve = find_descent(losses).curve
        assert curve[0] == pytest.approx(2.3, abs=0.1)
        lowest = int(np.argmin(curve))
        assert (np.diff(curve[: lowest + 1]) <= 1e-9).all()
        assert (np.diff(curve[lowest:]) >= -1e-9).all()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(8, 120), st.floats(0.1, 1.0), st.sampled_from([0.0, 1e-3, 0.3]), st.integers(0, 2**31))
def test_any_pattern_of_missing_points_can_be_fitted(count: int, share: float, noise: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    losses = np.interp(np.linspace(0, 99, count), np.arange(100), known()) + noise * random.standard_normal(count)
    losses[random.random(count) > share] = np.nan
    losses[-8:] = np.linspace(1.0, 0.9, 8)  # the fewest that must be there
    descent = find_descent(losses)
    assert np.isfinite(descent.curve).all()
    assert 0.0 <= descent.step_at(0.25) <= descent.step_at(0.75) <= count - 1


@pytest.mark.parametrize("seed", range(20))
def test_nonnegative_minimum_meets_its_conditions(seed: int) -> None:
    """Where it is above 0 the gradient is 0, and where it is 0 the gradient does not pull upwards."""
    random = np.random.default_rng(seed)
    parts = random.standard_normal((40, 25)) + random.standard_normal((40, 1))
    gram, moments = parts.T @ parts, parts.T @ random.standard_normal(40)
    values = nonnegative_minimum(gram, moments)
    gradient = gram @ values - moments
    assert (values[1:] >= 0.0).all()
    assert np.abs(gradient[(values > 0.0) | (np.arange(25) == 0)]).max() < 1e-8
    assert gradient[1:].min() > -1e-8
    assert 0 < np.count_nonzero(values[1:]) < 24
