"""OneCycleSchedule: against exact references, torch's OneCycleLR and fastai's formula."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clr_native import OneCycleSchedule
from helpers import raised
from references import LARGEST_SIZE, LARGEST_STEP
from references_ramps import exact, phases, telling_steps, worst_errors

KINDS = [
    {"convention": convention, "three_phase": three, "anneal_strategy": strategy}
    for convention, three, strategy in itertools.product(("torch", "fastai"), (False, True), ("cos", "linear"))
]

TOTALS = (1, 2, 3, 10, 97, 1000, 999_983, 2**40 + 3, LARGEST_SIZE)
SHARES = (None, 0.0, 5e-324, 1e-9, 0.1, 1 / 3, 0.5, math.nextafter(0.5, 0), 0.7, math.nextafter(1, 0), 1.0)

RATES: tuple[dict[str, Any], ...] = (
    {"max_lr": 0.1},
    {"max_lr": 3.0, "div_factor": 1.0, "final_div_factor": 1.0},
    {"max_lr": 1 / 3, "div_factor": 7.0, "final_div_factor": 1e9},
    {"max_lr": 1e270, "div_factor": 1e270, "final_div_factor": 1e270},
    {"max_lr": 1e-199, "div_factor": 1e20, "final_div_factor": 1e50, "base_momentum": 0.0, "max_momentum": 1.0},
    {"max_lr": 0.0, "base_momentum": 0.0, "max_momentum": 0.0},
    {"max_lr": 0.7, "base_momentum": 1e-270, "max_momentum": 0.95},
    {"max_lr": 1.0, "final_div_factor": 1e200, "base_momentum": 0.9, "max_momentum": math.nextafter(0.9, 1)},
)

# --- against exact references ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind.values())))
def test_values_are_within_an_ulp_of_the_truth(kind: dict[str, Any]) -> None:
    for i, (total, share) in enumerate(itertools.product(TOTALS, SHARES)):
        schedule = OneCycleSchedule(**RATES[i % len(RATES)], total_steps=total, pct_start=share, **kind)
        assert max(worst_errors(schedule, telling_steps(schedule))) <= 1, schedule


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind.values())))
@pytest.mark.parametrize("rates", RATES, ids=str)
def test_every_step_of_a_short_run(rates: dict[str, Any], kind: dict[str, Any]) -> None:
    schedule = OneCycleSchedule(**rates, total_steps=143, pct_start=0.237, **kind)
    assert max(worst_errors(schedule, list(range(150)))) <= 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind.values())))
def test_nearing_a_final_rate_a_billion_times_below(kind: dict[str, Any]) -> None:
    """Where 1 - w of a falling cosine is some 10**-18, and the rate is all but the final one."""
    schedule = OneCycleSchedule(1.0, 10**9, final_div_factor=1e9, **kind)
    end = schedule.total_steps
    steps = [*range(end - 40, end), *(end - 2**k for k in range(6, 29))]
    assert max(worst_errors(schedule, steps)) <= 1


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    total=st.one_of(st.integers(1, 50), st.integers(1, LARGEST_SIZE)),
    share=st.floats(0, 1),
    max_lr=st.floats(1e-100, 1e100),
    factors=st.tuples(st.floats(1, 1e60), st.floats(1, 1e60)),
    momenta=st.tuples(st.floats(1e-100, 1), st.floats(1e-100, 1)),
    places=st.lists(st.fractions(0, 1), min_size=4, max_size=4),
)
def test_any_arguments_and_steps(
    kind: dict[str, Any],
    total: int,
    share: float,
    max_lr: float,
    factors: tuple[float, float],
    momenta: tuple[float, float],
    places: list[Fraction],
) -> None:
    divide, final = factors
    if kind["three_phase"] and kind["convention"] == "fastai":
        final = max(final, divide)
    schedule = OneCycleSchedule(
        max_lr,
        total,
        pct_start=share,
        div_factor=divide,
        final_div_factor=final,
        base_momentum=min(momenta),
        max_momentum=max(momenta),
        **kind,
    )
    steps = [int(place * (total - 1)) for place in places] + [0, total - 1, total]
    assert max(worst_errors(schedule, steps)) <= 1


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        # Where initial_lr, max_lr, initial_lr again and final_lr are met.
        ({"pct_start": 0.3}, (0, 29, None, 99)),
        ({"pct_start": 0.3, "three_phase": True}, (0, 29, 58, 99)),
        ({"pct_start": 0.25, "convention": "fastai"}, (0, 25, None, None)),
        ({"pct_start": 0.25, "convention": "fastai", "three_phase": True}, (0, 25, 50, None)),
        ({"pct_start": 0.01}, (None, 0, None, 99)),
        ({"pct_start": 0.0}, (None, None, None, 99)),
        ({"pct_start": 1.0}, (0, 99, None, None)),
        ({"pct_start": 0.0, "convention": "fastai"}, (None, 0, None, None)),
        ({"pct_start": 0.5, "three_phase": True}, (0, 49, 98, 99)),
        ({"pct_start": 0.5, "three_phase": True, "convention": "fastai"}, (0, 50, None, None)),
    ],
)
def test_rates_are_met_exactly(arguments: dict[str, Any], steps: tuple[int | None, ...], strategy: str) -> None:
    schedule = OneCycleSchedule(0.7, 100, anneal_strategy=strategy, div_factor=3.0, **arguments)
    rates = (schedule.initial_lr, 0.7, schedule.initial_lr, schedule.final_lr)
    momenta = (0.95, 0.85, 0.95, 0.95)
    for step, lr, momentum in zip(steps, rates, momenta, strict=True):
        if step is not None:
            assert schedule(step) == (lr, momentum), step
    assert schedule.initial_lr == 0.7 / 3
    assert schedule.final_lr == (0.7 / 3 / 1e4 if schedule.convention == "torch" else 0.7 / 1e5)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind.values())))
@pytest.mark.parametrize("total", [1, 2, 3, 50, LARGEST_SIZE])
def test_its_last_value_is_held(total: int, kind: dict[str, Any]) -> None:
    schedule = OneCycleSchedule(0.5, total, **kind)
    last = schedule(total - 1)
    for step in (total, total + 1, 2 * total, 2**62, LARGEST_STEP):
        assert schedule(step) == last
    assert len(set(schedule.values(range(total, total + 70))[0])) == 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind.values())))
@pytest.mark.parametrize("share", SHARES)
def test_it_rises_and_falls_and_never_leaves_its_rates(share: float | None, kind: dict[str, Any]) -> None:
    schedule = OneCycleSchedule(0.3, 301, pct_start=share, **kind)
    lr, momentum = schedule.values(400)
    peak = int(lr.argmax())
    assert (lr[:peak] <= lr[1 : peak + 1]).all()
    assert (lr[peak:-1] >= lr[peak + 1 :]).all()
    bottom = int(momentum.argmin())  # beside the peak if that lies between two steps
    assert abs(bottom - peak) <= 1
    assert (momentum[:bottom] >= momentum[1 : bottom + 1]).all()
    assert (momentum[bottom:-1] <= momentum[bottom + 1 :]).all()
    assert min(schedule.initial_lr, schedule.final_lr) <= lr.min() <= lr.max() <= 0.3
    assert 0.85 <= momentum.min() <= momentum.max() <= 0.95


# --- against torch --------------------------------------------------------------------------------------------


def torch_scheduler(schedule: OneCycleSchedule) -> torch.optim.lr_scheduler.OneCycleLR:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    arguments = {field.name: getattr(schedule, field.name) for field in dataclasses.fields(schedule)}
    del arguments["convention"]
    arguments["pct_start"] = 0.3 if schedule.pct_start is None else schedule.pct_start
    arguments["final_div_factor"] = 1e4 if schedule.final_div_factor is None else schedule.final_div_factor
    made = torch.optim.lr_scheduler.OneCycleLR(optimizer, **arguments)
    optimizer.step()
    return made


def torch_value(scheduler: torch.optim.lr_scheduler.OneCycleLR, step: int) -> tuple[float, float]:
    scheduler.last_epoch = step - 1
    scheduler.step()
    (group,) = scheduler.optimizer.param_groups
    return group["lr"], group["momentum"]


@settings(derandomize=True, max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    total=st.one_of(st.integers(2, 40), st.integers(1000, 10**6)),
    share=st.floats(0, 1),
    max_lr=st.floats(1e-6, 1e3),
    factors=st.tuples(st.floats(1, 1e3), st.floats(1, 1e6)),
    momenta=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    flags=st.tuples(st.booleans(), st.booleans()),
    strategy=st.sampled_from(("cos", "linear")),
    places=st.lists(st.fractions(0, 1), min_size=6, max_size=6),
)
def test_agreement_with_torch(
    total: int,
    share: float,
    max_lr: float,
    factors: tuple[float, float],
    momenta: tuple[float, float],
    flags: tuple[bool, bool],
    strategy: str,
    places: list[Fraction],
) -> None:
    schedule = OneCycleSchedule(
        max_lr,
        total,
        pct_start=share,
        anneal_strategy=strategy,
        div_factor=factors[0],
        final_div_factor=factors[1],
        three_phase=flags[0],
        cycle_momentum=flags[1],
        base_momentum=min(momenta),
        max_momentum=max(momenta),
    )
    ends = [Fraction(0), *(phase.end for phase in phases(schedule))]
    if any(abs(a - b) <= Fraction(total, 2**40) for a, b in itertools.pairwise(ends)):
        return  # without length but for rounding: torch divides by zero, see below, or by its own rounding
    theirs = torch_scheduler(schedule)
    for step in sorted({0, total - 1, *(int(place * (total - 1)) for place in places)}):
        lr, momentum = torch_value(theirs, step)
        own = schedule(step)
        assert abs(own.lr - lr) <= 2**-51 * max_lr, f"step {step} of {schedule}"
        if own.momentum is None:
            assert not flags[1]
        else:
            assert abs(own.momentum - momentum) <= 2**-51, f"step {step} of {schedule}"


@pytest.mark.parametrize(
    ("total", "arguments", "step", "lr"),
    [
        (10, {"pct_start": 0.1}, 0, 1.0),  # the rising phase ends at step 0: it is over
        (1, {"pct_start": 1.0}, 0, 1.0),
        (4, {"pct_start": 0.25, "three_phase": True}, 0, 1.0),
        (2, {"pct_start": 0.5, "three_phase": True, "anneal_strategy": "linear"}, 0, 1.0),
    ],
)
def test_a_phase_without_length_is_over_where_torch_divides_by_zero(
    total: int, arguments: dict[str, Any], step: int, lr: float
) -> None:
    schedule = OneCycleSchedule(1.0, total, **arguments)
    assert schedule(step) == (lr, 0.85)
    assert exact(schedule, step).lr == lr
    error = raised(lambda: torch_value(torch_scheduler(schedule), step))
    if error is None:
        pytest.skip(f"torch {torch.__version__} has mended this")
    assert isinstance(error, ZeroDivisionError)


def past_the_end(schedule: OneCycleSchedule, step: int) -> float:
    """What torch's own formula gives past the end, where it raises unless asked for an epoch."""
    scheduler = torch_scheduler(schedule)
    scheduler.total_steps = step + 1  # the check alone reads it
    return torch_value(scheduler, step)[0]


def test_never_negative_past_its_end() -> None:
    schedule = OneCycleSchedule(1.0, 10, anneal_strategy="linear")
    assert min(schedule.values(30)[0]) == schedule(9).lr == schedule.final_lr > 0
    if past_the_end(schedule, 11) >= 0:
        pytest.skip(f"torch {torch.__version__} has mended this")


def test_never_rising_again_past_its_end() -> None:
    schedule = OneCycleSchedule(1.0, 10)
    lr = schedule.values(40)[0]
    assert set(lr[9:]) == {schedule.final_lr}
    if past_the_end(schedule, 12) <= schedule.final_lr:
        pytest.skip(f"torch {torch.__version__} has mended this")


# --- against fastai's formula ---------------------------------------------------------------------------------


def combined_cos(share: float, start: float, middle: float, end: float, position: float) -> float:
    """fastai 2.8's ``combined_cos``, written from its definition: two cosine halves, the second from ``share`` on.

    Compared once with fastai 2.8.12's own at float64 positions: 4e-16 apart. fastai itself computes them in float32.
    """
    first = position < share
    place = position / share if first else (position - share) / (1 - share)
    a, b = (start, middle) if first else (middle, end)
    return a + (1 + math.cos(math.pi * (1 - place))) * (b - a) / 2


@pytest.mark.parametrize("total", [4, 100, 1234, 99_991])
@pytest.mark.parametrize(
    "arguments", [{}, {"pct_start": 0.4, "div_factor": 10.0}, {"final_div_factor": 1e3, "max_momentum": 0.9}], ids=str
)
def test_agreement_with_the_formula_of_fit_one_cycle(arguments: dict[str, Any], total: int) -> None:
    schedule = OneCycleSchedule(0.02, total, convention="fastai", **arguments)
    share = schedule.pct_start or 0.25
    high, low = schedule.max_momentum, schedule.base_momentum
    for step in {*range(min(total, 40)), *range(0, total, total // 4), total - 1}:
        lr, momentum = schedule(step)
        assert momentum is not None
        expected = combined_cos(share, schedule.initial_lr, 0.02, schedule.final_lr, step / total)
        assert abs(lr - expected) <= 2**-51 * 0.02
        assert abs(momentum - combined_cos(share, high, low, high, step / total)) <= 2**-51


# --- extended -------------------------------------------------------------------------------------------------


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    totals=st.tuples(st.integers(1, 3000), st.integers(0, 3000)),
    share=st.fractions(0, 1),
)
def test_extended_keeps_a_rise_of_whole_steps_to_the_bit(
    kind: dict[str, Any], totals: tuple[int, int], share: Fraction
) -> None:
    """49 * (1 / 49) is below 1: a rise that ends an ulp early would miss its peak, or skip its phase."""
    rise = int(share * totals[0])
    schedule = OneCycleSchedule(0.1, totals[0], pct_start=rise / totals[0], **kind)
    longer = schedule.extended(sum(totals))
    assert longer.total_steps == sum(totals)
    steps = rise if schedule.convention == "torch" else min(rise + 1, totals[0])  # to the peak
    assert longer.values(steps)[0].tolist() == schedule.values(steps)[0].tolist()
    assert longer.values(steps)[1].tolist() == schedule.values(steps)[1].tolist()
    assert steps == 0 or totals[0] == rise or longer(steps - 1) == (0.1, 0.85)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    totals=st.tuples(st.integers(20, 3000), st.integers(0, 3000)),
    share=st.floats(0.1, 0.9),
)
def test_extended_keeps_any_rise_to_some_ulp(kind: dict[str, Any], totals: tuple[int, int], share: float) -> None:
    schedule = OneCycleSchedule(0.1, totals[0], pct_start=share, **kind)
    longer = schedule.extended(sum(totals))
    steps = int(phases(schedule)[0].end) + 1
    for own, other in zip(schedule.values(steps)[0].tolist(), longer.values(steps)[0].tolist(), strict=True):
        assert abs(own - other) <= 4 * math.ulp(own)


def test_extended_keeps_everything_else_and_refuses_to_be_shortened() -> None:
    schedule = OneCycleSchedule(0.3, 100, three_phase=True, div_factor=7.0, max_momentum=0.9)
    assert schedule.extended(100) == dataclasses.replace(schedule, pct_start=0.3)
    assert dataclasses.replace(schedule.extended(250), total_steps=100, pct_start=None) == schedule
    assert schedule.extended(250).extended(400).values(30)[0].tolist() == schedule.values(30)[0].tolist()
    wrong: list[tuple[Any, type[Exception]]] = [
        (99, ValueError),
        (0, ValueError),
        (2**53, ValueError),
        ("x", TypeError),
    ]
    for total, error in wrong:
        with pytest.raises(error, match=f"total_steps={total!r} must be"):
            schedule.extended(total)
    assert schedule.total_steps == 100
