"""RampSchedule: against exact references, at its ends, and what it takes."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr_native import RampSchedule
from references import LARGEST_SIZE, LARGEST_STEP
from references_ramps import telling_steps, worst_errors
from refusals import Row, refusals

SIZES = (1, 2, 3, 7, 1000, 999_983, 2**40 + 3, LARGEST_SIZE - 1, LARGEST_SIZE)

RATES = (
    (1e-7, 10.0),
    (1.0, 1e-9),
    (0.1, math.nextafter(0.1, 1)),
    (math.nextafter(0.1, 1), 0.1),
    (0.3, 0.3),
    (1e-270, 1e270),
    (1e270, 1e-270),
    (1e270, math.nextafter(1e270, 0)),
    (1e-270, 2e-270),
    (1 / 3, 1e-200),
    (1.0, 2.0),
)
WITH_ZERO = ((0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (0.0, 1e-270), (1e270, 0.0))
BOUND = {"linear": 1.0, "exponential": 2.0}


@pytest.mark.parametrize(
    ("ramp", "rates"), [*itertools.product(BOUND, RATES), *(("linear", rates) for rates in WITH_ZERO)]
)
def test_values_are_within_their_bound_of_the_truth(ramp: str, rates: tuple[float, float]) -> None:
    for i, size in enumerate(SIZES):
        schedule = RampSchedule(*rates, size, ramp=ramp, momentum=(None, 0.0, 0.9, 1e-270, 1.0)[i % 5])
        lr, momentum = worst_errors(schedule, telling_steps(schedule))
        assert lr <= BOUND[ramp], f"{lr} ulp in {schedule}"
        assert momentum == 0


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    ramp=st.sampled_from(tuple(BOUND)),
    rates=st.tuples(*[st.floats(1e-270, 1e270, exclude_min=True, exclude_max=True)] * 2),
    size=st.one_of(st.integers(1, 50), st.integers(1, LARGEST_SIZE)),
    places=st.lists(st.fractions(0, 1), min_size=3, max_size=3),
)
def test_any_rates_and_steps(ramp: str, rates: tuple[float, float], size: int, places: list[Fraction]) -> None:
    schedule = RampSchedule(*rates, size, ramp=ramp)
    assert worst_errors(schedule, [int(place * size) for place in places])[0] <= BOUND[ramp]


@pytest.mark.parametrize("ramp", BOUND)
@pytest.mark.parametrize("rates", RATES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_its_ends_are_exact_and_the_last_is_held(size: int, rates: tuple[float, float], ramp: str) -> None:
    schedule = RampSchedule(*rates, size, ramp=ramp)
    assert schedule(0).lr == rates[0]
    for step in (size, size + 1, 2**53, 2**62, LARGEST_STEP):
        assert schedule(step) == (rates[1], None)
    assert set(schedule.values(range(size, size + 70))[0]) == {rates[1]}


@pytest.mark.parametrize("ramp", BOUND)
@pytest.mark.parametrize("rates", RATES, ids=str)
def test_it_goes_one_way_and_never_past_its_rates(rates: tuple[float, float], ramp: str) -> None:
    lr, momentum = RampSchedule(*rates, 997, ramp=ramp).values(1100)
    way = lr if rates[0] <= rates[1] else lr[::-1]
    assert (way[:-1] <= way[1:]).all()
    assert min(rates) <= lr.min() <= lr.max() <= max(rates)
    assert np.isnan(momentum).all()


def test_equal_factors_between_points_of_an_exponential_range_test() -> None:
    lr, _ = RampSchedule(2.0**-20, 4.0, 11, ramp="exponential").values(12)
    assert lr.tolist() == [2.0**k for k in range(-20, 3, 2)]


NAN, INF = math.nan, math.inf

REFUSED: list[Row] = [
    *refusals(
        ("start_lr", "end_lr"),
        [NAN, INF, -0.1, 1e-271, 1e271, 10**400],
        [None, True, "0.1", 1j, np.array([0.1, 0.2])],
    ),
    *refusals("num_steps", [0, -1, 2.5, NAN, INF, 2**53, 10**400], [None, False, "5", np.array(5)]),
    *refusals("momentum", [1.5, -0.1, NAN, INF, 1e-300], [True, "0.9", np.array([0.9])]),
    *(
        ({"ramp": value}, ValueError, f"ramp={value!r} must be one of 'linear', 'exponential'")
        for value in ("cos", None, True, 3, b"linear", ["linear"])
    ),
    *(
        ({name: 0.0, "ramp": "exponential"}, ValueError, f"{name}=0.0 must be above 0 with ramp='exponential'")
        for name in ("start_lr", "end_lr")
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED)
def test_refused_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        RampSchedule(**{"start_lr": 0.1, "end_lr": 0.5, "num_steps": 10, **arguments})
    assert message in str(caught.value)


@pytest.mark.parametrize(("given", "kept"), [(10.0, 10), (np.int32(10), 10), (np.float64(10), 10), (Fraction(10), 10)])
def test_whole_sizes_of_any_kind(given: Any, kept: int) -> None:
    rates: tuple[Any, Any] = (Fraction(1, 4), np.float32(0.5))
    schedule = RampSchedule(*rates, given)
    assert schedule == RampSchedule(0.25, 0.5, kept)
    assert [type(getattr(schedule, name)) for name in ("start_lr", "end_lr", "num_steps")] == [float, float, int]


def test_no_cycle_begins() -> None:
    assert RampSchedule(0.1, 0.5, 3).cycle_starts(100) == []
