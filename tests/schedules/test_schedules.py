"""What CyclicSchedule takes and refuses, and its scale_fn."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from clr_native import CyclicSchedule, evaluate
from helpers import schedule_with
from refusals import Row, refusals

NAN, INF = math.nan, math.inf


# --- bad input ----------------------------------------------------------------------------------------------

SIZES = ("step_size_up", "step_size_down", "decay_steps")

REFUSED: list[Row] = [
    *refusals(
        SIZES,
        [0, -1, -3.0, 2.5, Fraction(1, 2), NAN, INF, 2**53, 2**53 + 1, 1e300, 10**400],
        [True, np.True_, "2000", 1j, [5], torch.tensor([5, 6])],
    ),
    ({"step_size_up": None}, TypeError, "step_size_up=None"),
    *refusals(
        ("base_lr", "max_lr"),
        [NAN, INF, -0.1, 10**400],
        [None, True, "0.1", np.array([0.1, 0.2]), torch.tensor([0.1, 0.2])],
    ),
    ({"base_lr": 0.6}, ValueError, "base_lr=0.6 must not be above max_lr=0.5"),
    ({"max_lr": 0.05}, ValueError, "base_lr=0.1 must not be above max_lr=0.05"),
    *(
        row
        for cycled in (True, False)
        for row in refusals(
            ("base_momentum", "max_momentum"), [1.5, -0.5, NAN, INF], [None, True, "0.9"], cycle_momentum=cycled
        )
    ),
    ({"base_momentum": 0.95}, ValueError, "base_momentum=0.95 must not be above max_momentum=0.9"),
    ({"max_momentum": 0.5}, ValueError, "base_momentum=0.8 must not be above max_momentum=0.5"),
    *(
        row
        for mode in ("triangular", "exp_range")
        for row in refusals("gamma", [0.0, -0.5, NAN, INF, 10**400], [None, True, "0.9"], mode=mode)
    ),
    *(
        ({name: value}, ValueError, f"{name}={value!r} must be one of")
        for name, values in {
            "mode": ("Triangular", "triangular3", "scale_fn", "", None, 0, ["triangular"]),
            "window": ("parabolic", "Hann", None, 0),
            "scale_mode": ("iteration", "cycles", None),
        }.items()
        for value in values
    ),
    *(
        ({name: value}, TypeError, f"{name}={value!r} must be True or False")
        for name in ("cycle_momentum", "decay_base")
        for value in (0, 1, None, "yes", 0.9)
    ),
    *(
        ({"scale_fn": value}, TypeError, f"scale_fn={value!r} must be callable or None")
        for value in (0.5, "exp", [1.0])
    ),
    ({"mode": "linear_range"}, ValueError, "decay_steps=None must be"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), REFUSED, ids=[str(arguments)[:50] for arguments, *_ in REFUSED]
)
def test_refused_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        schedule_with(**arguments)


def test_an_array_is_no_mode() -> None:
    with pytest.raises((TypeError, ValueError), match="mode="):
        schedule_with(mode=np.array(["triangular", "hann"]))


@pytest.mark.parametrize("name", ["lr", "last_epoch", "step_size", "momentum"])
def test_unknown_arguments_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        schedule_with(**{name: 1})


def test_only_the_bounds_are_positional() -> None:
    with pytest.raises(TypeError, match="positional"):
        CyclicSchedule(0.1, 0.5, 2000)  # type: ignore[call-arg]  # wrong on purpose


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (-1, ValueError),
        (2**63 - 1, ValueError),
        (10**400, ValueError),
        (np.int64(-1), ValueError),
        (True, TypeError),
        (2.0, TypeError),
        ("2", TypeError),
        (None, TypeError),
        (range(2), TypeError),
    ],
)
def test_refused_steps(step: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=re.escape(f"step={step!r} must be")):
        schedule_with()(step)


@pytest.mark.parametrize("size", [3, 3.0, np.int32(3), np.uint8(3), np.float32(3), Fraction(3)])
def test_whole_numbers_of_any_kind_are_sizes(size: Any) -> None:
    schedule = schedule_with(step_size_up=size, step_size_down=size, mode="linear_range", decay_steps=size)
    assert [type(getattr(schedule, name)) for name in SIZES] == [int] * 3
    assert schedule == schedule_with(step_size_up=3, step_size_down=3, mode="linear_range", decay_steps=3)
    assert schedule.cycle_length == 6


@pytest.mark.parametrize("number", [1, np.float32(1), np.int64(1), Fraction(1)])
def test_numbers_of_any_kind_become_floats(number: Any) -> None:
    schedule = CyclicSchedule(number, number, gamma=number, base_momentum=number, max_momentum=number)
    for name in ("base_lr", "max_lr", "gamma", "base_momentum", "max_momentum"):
        assert type(getattr(schedule, name)) is float


def test_the_least_and_the_most_that_is_accepted() -> None:
    most = 2**53 - 1
    schedule = CyclicSchedule(0, 1e270, step_size_up=most, step_size_down=1, base_momentum=0, max_momentum=1)
    assert schedule.cycle_length == 2**53
    assert schedule(0) == (0.0, 1.0)
    assert schedule(most) == (1e270, 0.0)
    assert schedule_with(gamma=5e-324, mode="exp_range", step_size_up=1)(1) == (0.1, 0.9)


# --- values that no optimizer can use -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "step", "message"),
    [
        ({"mode": "exp_range", "gamma": 1.1, "cycle_momentum": False}, 10**6 + 1, r"lr=(inf|nan)"),
        ({"mode": "exp_cycle", "gamma": 1e300, "cycle_momentum": False}, 25, r"lr=(inf|nan)"),
        ({"mode": "exp_range", "gamma": 1.1}, 55, r"lr=.* momentum=-"),
        ({"scale_fn": lambda cycle: -0.5, "cycle_momentum": False}, 5, r"lr=-0\.1"),
        ({"scale_fn": lambda cycle: -0.9, "base_momentum": 0.0}, 1, r"lr=0\.01.* momentum=1\.06"),
        ({"scale_fn": lambda cycle: 10.0}, 5, r"lr=5\.1 momentum=-0\.0999"),
        ({"scale_fn": lambda cycle: NAN}, 5, r"lr=nan"),
        ({"scale_fn": lambda cycle: NAN, "cycle_momentum": False}, 0, r"lr=nan"),
        ({"scale_fn": lambda cycle: INF, "cycle_momentum": False}, 5, r"lr=(inf|nan)"),
    ],
)
def test_values_outside_what_an_optimizer_takes(arguments: dict[str, Any], step: int, message: str) -> None:
    schedule = CyclicSchedule(0.1, 0.6, step_size_up=5, **arguments)
    asked: list[Callable[[], object]] = [
        lambda: schedule(step),
        lambda: schedule.values(range(step, step + 1)),
        lambda: schedule.values([step]),
        lambda: evaluate([schedule], [step]),
    ]
    for ask in asked:
        with pytest.raises(ValueError, match=f"step={step} gives {message}"):
            ask()


# --- scale_fn -----------------------------------------------------------------------------------------------


class Recorded:
    """A scale_fn that writes down what it is called with."""

    def __init__(self) -> None:
        self.arguments: list[int] = []

    def __call__(self, argument: int) -> float:
        assert type(argument) is int
        self.arguments.append(argument)
        return 1 / (argument + 1)


@pytest.mark.parametrize(
    ("scale_mode", "steps", "arguments"),
    [
        ("cycle", 13, [1, 2, 3]),
        ("cycle", range(5, 25, 5), [1, 2, 3, 4]),
        ("cycle", [24, 0, 25, 3], [1, 5]),
        ("cycle", [2**63 - 2], [(2**63 - 2) // 6 + 1]),
        ("cycle", 0, []),
        ("iterations", 4, [0, 1, 2, 3]),
        ("iterations", [7, 5, 7, 5, 6], [5, 6, 7]),
        ("iterations", range(10, 0, -4), [2, 6, 10]),
        ("iterations", [2**63 - 2], [2**63 - 2]),
    ],
)
def test_scale_fn_is_called_once_for_each_argument(scale_mode: str, steps: Any, arguments: list[int]) -> None:
    scale_fn = Recorded()
    schedule = schedule_with(step_size_up=2, step_size_down=4, scale_fn=scale_fn, scale_mode=scale_mode)
    lr, _ = schedule.values(steps)
    assert sorted(scale_fn.arguments) == arguments
    asked = range(steps) if isinstance(steps, int) else steps
    assert lr.tolist() == [schedule(step).lr for step in asked]


def test_scale_fn_takes_precedence_over_mode() -> None:
    mode = {"mode": "exp_range", "gamma": 0.5}
    assert schedule_with(**mode, scale_fn=lambda cycle: 1.0)(2000).lr == 0.5
    assert schedule_with(scale_fn=lambda step: step / 4000, scale_mode="iterations")(2000).lr == 0.3


def test_scale_fn_above_one_may_leave_the_boundaries() -> None:
    schedule = schedule_with(step_size_up=1, scale_fn=lambda cycle: 1.5)
    assert schedule(1).lr == pytest.approx(0.7, rel=1e-15)
    assert schedule(1).momentum == pytest.approx(0.75, rel=1e-15)


def test_an_exception_of_scale_fn_comes_through() -> None:
    def failing(cycle: int) -> float:
        raise KeyError(cycle)

    with pytest.raises(KeyError, match="1"):
        schedule_with(scale_fn=failing)(0)


@pytest.mark.parametrize("result", [None, "0.5", "half", [], [0.5], [0.5, 0.7], 1j, np.ones((2, 2))])
@pytest.mark.parametrize("count", [1, 5])
def test_what_scale_fn_gives_must_be_a_number(result: Any, count: int) -> None:
    with pytest.raises((TypeError, ValueError), match="scale_fn"):
        schedule_with(step_size_up=1, scale_fn=lambda cycle: result).values(count)


@pytest.mark.parametrize("result", [1, np.float32(0.5), np.float64(0.25), Fraction(1, 4)])
def test_numbers_of_any_kind_are_scales(result: Any) -> None:
    assert schedule_with(step_size_up=1, scale_fn=lambda cycle: result)(1).lr == pytest.approx(
        0.1 + 0.4 * float(result), rel=1e-15
    )
