"""The numbers of a schedule: against exact references and torch, and the same from every instruction set."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import references
from clr_native import CyclicSchedule, build_info
from references import (
    LARGEST_STEP,
    SIZES,
    WINDOWS,
    Boundaries,
    bound,
    cyclic,
    is_usable,
    lr_and_momentum,
    ulp_error,
)

SMALLEST = Fraction(1, 2**1020)  # below, values have lost digits

BOUNDARIES: tuple[Boundaries, ...] = (
    (0.001, 0.006, 0.8, 0.9),
    (0.0, 1.0, 0.0, 1.0),
    (0.1, 0.5, 0.85, 0.95),
    (1e-7, 10.0, 0.0, 0.9),
    (1 / 3, 0.7, 0.1, 0.7),
    (0.0, 0.3, 0.9, 0.9),
    (0.3, 0.3, 0.0, 0.0),
    (0.0, 0.0, 1e-270, 1.0),
    (0.1, math.nextafter(0.1, 1), 0.5, math.nextafter(0.5, 1)),
    (1e-270, 2e-270, 1e-270, 1e-250),
    (1e-270, 1e270, 0.0, 1e-270),
    (0.0, 1e-270, 0.3, 1.0),
    (1e-3, 1e270, 0.3, 1.0),
)


def _falling(argument: int) -> float:
    return 1 / argument**0.5 if argument else 1.0


def _periodic(argument: int) -> float:
    return (argument % 7) / 6


MODES: dict[str, dict[str, Any]] = {
    **references.MODES,
    "scale_fn": {"scale_fn": _falling},
    "scale_fn of the step": {"scale_fn": _periodic, "scale_mode": "iterations"},
}


# --- against exact references -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("computed", "expected"),
    [
        (references.window("welch", Fraction(1, 2)), Fraction(3, 4)),
        (references.window("hann", Fraction(1, 2)), Fraction(1, 2)),
        (round(references.window("hann", Fraction(1, 3)) * 2**350), 2**348),
        (references.power(0.5, 10), Fraction(1, 1024)),
        (references.power(2.0, 10**18), Fraction(2) ** 4000),
        (references.power(0.5, 10**18), Fraction(1, 2**4000)),
        (lr_and_momentum(cyclic((0.0, 1.0, 0.5, 1.0), 4), 9), (Fraction(1, 4), Fraction(7, 8))),
        (ulp_error(1 + 2**-52, Fraction(1)), 1.0),
        (ulp_error(1.0, 1 - Fraction(1, 2**54)), 0.5),
        (ulp_error(math.nan, Fraction(1)), math.inf),
    ],
)
def test_the_references_themselves(computed: Any, expected: Any) -> None:
    assert computed == expected


def check(schedule: CyclicSchedule, steps: list[int]) -> None:
    """Both values of every step lie within the bound of the truth."""
    assert steps
    computed = zip(steps, *(array.tolist() for array in schedule.values(np.array(steps))), strict=True)
    for step, lr, momentum in computed:
        true_lr, true_momentum = lr_and_momentum(schedule, step)
        slack = Fraction(0)
        if schedule.scale_fn is not None and references.scale(schedule, step) > 1:
            slack = Fraction(schedule.max_momentum) / 2**96
        for name, value, truth, allowance in (
            ("lr", lr, true_lr, Fraction(0)),
            ("momentum", momentum, true_momentum, slack),
        ):
            allowed = bound(schedule) if truth >= SMALLEST else max(1.0, bound(schedule))
            error = abs(Fraction(value) - truth) if math.isfinite(value) else math.inf
            assert error <= allowance or ulp_error(value, truth) <= allowed, (
                f"{name} is off by {ulp_error(value, truth)} ulp at step {step} of {schedule}"
            )


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("mode", MODES)
def test_values_are_within_their_bound_of_the_truth(window: str, mode: str) -> None:
    random = np.random.default_rng(2017)
    shift = list(MODES).index(mode)
    for i, (up, down) in enumerate(SIZES):
        boundaries = BOUNDARIES[(i + shift) % len(BOUNDARIES)]
        schedule = cyclic(boundaries, up, down, window=window, **MODES[mode])
        steps = references.telling_steps(schedule, random)
        check(schedule, [step for step in steps if is_usable(*lr_and_momentum(schedule, step))])


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("boundaries", BOUNDARIES)
def test_every_step_of_a_short_cycle(window: str, boundaries: Boundaries) -> None:
    check(cyclic(boundaries, 173, 97, window=window), list(range(270)))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("up", "down"), SIZES)
def test_bottoms_and_peaks_are_the_boundaries(window: str, up: int, down: int) -> None:
    last = LARGEST_STEP // (up + down)
    cycles = sorted({min(cycle, last) for cycle in (0, 1, 2, 3, 1025, 10**9 + 7, last)})
    bottoms = [cycle * (up + down) for cycle in cycles]
    peaks = [bottom + up for bottom in bottoms if bottom + up <= LARGEST_STEP]
    for boundaries, mode in itertools.product(BOUNDARIES, ("triangular", "triangular2", "exp_range")):
        schedule = cyclic(boundaries, up, down, window=window, mode=mode, gamma=0.9)
        lr, momentum = schedule.values(bottoms)
        assert set(lr) == {schedule.base_lr}
        assert set(momentum) == {schedule.max_momentum}
        if mode == "triangular":
            lr, momentum = schedule.values(peaks)
            assert set(lr) == {schedule.max_lr}
            assert set(momentum) == {schedule.base_momentum}


def test_bottoms_under_a_growing_amplitude() -> None:
    lr, momentum = CyclicSchedule(0.1, 0.5, step_size_up=5, mode="exp_range", gamma=1.1).values(range(0, 7001, 10))
    assert set(lr) == {0.1}
    assert set(momentum) == {0.9}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("mode", [*MODES, "exp_range, far out"])
def test_equal_boundaries_mean_constant(window: str, mode: str) -> None:
    arguments = {**MODES.get(mode, {"mode": "exp_range", "gamma": 1.1}), "decay_base": False}
    schedule = cyclic((0.3, 0.3, 0.7, 0.7), 3, 7, window=window, **arguments)
    lr, momentum = schedule.values(references.telling_steps(schedule, np.random.default_rng(3)))
    assert set(lr) == {0.3}
    assert set(momentum) == {0.7}


@pytest.mark.parametrize("mode", [{"mode": "exp_range", "gamma": 1.01}, {"mode": "exp_cycle", "gamma": 1.1}])
@pytest.mark.parametrize("window", WINDOWS)
def test_gamma_above_one_is_right_as_long_as_it_can_be_used(window: str, mode: dict[str, Any]) -> None:
    schedule = CyclicSchedule(0.1, 0.6, step_size_up=5, window=window, **mode)
    usable = [step for step in range(400) if is_usable(*lr_and_momentum(schedule, step))]
    assert 200 < len(usable) < 400
    check(schedule, usable)
    for step in sorted(set(range(400)) - set(usable)):
        with pytest.raises(ValueError, match=f"step={step} gives"):
            schedule(step)


def test_triangular2_goes_down_to_the_base_rate() -> None:
    schedule = CyclicSchedule(0.001, 0.006, step_size_up=3, mode="triangular2")
    for cycle in (1025, 1100, LARGEST_STEP // 6 - 1):
        assert schedule(6 * cycle + 3) == (0.001, 0.9)


@pytest.mark.parametrize("max_lr", [0.001, 1.0, 10.0, 1e5])
@pytest.mark.parametrize(
    ("mode", "steps"),
    [
        ({"mode": "triangular2"}, [2000 * k + p for k in range(1000, 1080, 3) for p in (333, 800, 1000)]),
        ({"mode": "exp_range", "gamma": 0.99}, [*range(68_001, 75_000, 333)]),
        ({"mode": "exp_cycle", "gamma": 0.5}, [2000 * k + 333 for k in range(1000, 1080, 3)]),
        ({"scale_fn": lambda cycle: 3e-320}, [333, 800, 1000]),
    ],
)
def test_the_smallest_doubles(max_lr: float, mode: dict[str, Any], steps: list[int]) -> None:
    check(CyclicSchedule(0.0, max_lr, step_size_up=1000, **mode), steps)


@pytest.mark.parametrize(
    ("up", "step", "constant"),
    [(3, 2, 1.5), (25, 4, 25 / 4), (45, 1, 45.0), (69, 2, 69 / 2), (55, 1, 55.0), (157, 1, 157.0)],
)
def test_momentum_that_a_scale_above_one_brings_to_zero(up: int, step: int, constant: float) -> None:
    assert cyclic((0.0, 1.0, 0.0, 0.9), up, scale_fn=lambda cycle: constant)(step) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("up", "step", "constant"),
    [
        (29, 1, math.nextafter(29.0, 0)),
        (116, 1, math.nextafter(116.0, 0)),
        (17, 15, math.nextafter(17 / 15, 0)),
        (31, 25, 31 / 25),
    ],
)
def test_momentum_that_a_scale_above_one_brings_near_zero(up: int, step: int, constant: float) -> None:
    check(cyclic((0.0, 1.0, 0.0, 0.9), up, scale_fn=lambda cycle: constant), [step])


# --- the same bits from every instruction set ---------------------------------------------------------------


def table_from(isa: str) -> dict[str, str]:
    here = str(Path(references.__file__).parent)
    code = (
        f"import sys; sys.path.insert(0, {here!r}); import references, references_ramps; "
        "references.print_table(references_ramps.table())"
    )
    environment = {**os.environ, "CLR_NATIVE_ISA": isa}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert table["isa"] == isa
    return dict(table["digests"])


@pytest.mark.slow
def test_every_instruction_set_gives_the_same_bits() -> None:
    isas = build_info()["isa"]["detected"]
    if len(isas) == 1:
        pytest.skip(f"this processor runs no instruction set but {isas[0]}")
    with ThreadPoolExecutor(2) as pool:
        tables = dict(zip(isas, pool.map(table_from, isas), strict=True))
    baseline = tables["baseline"]
    assert len(baseline) > 1000
    for isa, table in tables.items():
        different = [name for name in baseline if table[name] != baseline[name]]
        assert not different, f"{isa} differs from baseline for {len(different)} tables: {different[:5]}"


# --- against torch ------------------------------------------------------------------------------------------


def torch_values(schedule: CyclicSchedule, steps: list[int]) -> Iterator[tuple[float, float]]:
    """What torch's scheduler leaves in the group at these steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    fields = {field.name for field in dataclasses.fields(schedule)} - {"decay_steps", "decay_base", "window"}
    arguments: dict[str, Any] = {name: getattr(schedule, name) for name in fields}
    scheduler = torch.optim.lr_scheduler.CyclicLR(optimizer, **arguments)
    optimizer.step()
    for step in steps:
        scheduler.last_epoch = step - 1
        scheduler.step()
        yield optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"mode": "triangular2"},
        {"mode": "exp_range", "gamma": 0.99994},
        {"mode": "exp_range", "gamma": 1.0000001},
        {"scale_fn": _falling},
        {"scale_fn": _periodic, "scale_mode": "iterations"},
    ],
)
@pytest.mark.parametrize(("up", "down"), [(1, 1), (3, 7), (7, 3), (333, 667), (2000, None), (70_001, 30_011)])
@pytest.mark.parametrize("boundaries", [(0.001, 0.006, 0.8, 0.9), (0.0, 3.0, 0.1, 0.99)])
def test_agreement_with_torch(boundaries: Boundaries, up: int, down: int | None, arguments: dict[str, Any]) -> None:
    schedule = cyclic(boundaries, up, down, **arguments)
    length = schedule.cycle_length
    # From cycle 1024 on torch's triangular2 raises; test_where_torch_overflows has that.
    end = min(10**6, 1024 * length) if schedule.mode == "triangular2" else 10**6
    around_ends = [cycle * length + offset for cycle in (1, 2, 9) for offset in (-1, 0, 1)]
    steps = [*range(50), *around_ends, *np.random.default_rng(7).integers(end, size=100).tolist()]
    amplitudes = schedule.max_lr - schedule.base_lr, schedule.max_momentum - schedule.base_momentum
    for step, theirs in zip(steps, torch_values(schedule, steps), strict=True):
        relative = 2**-52 * (step / length + 4) * length / min(up, length - up)
        for amplitude, our, their in zip(amplitudes, schedule(step), theirs, strict=True):
            assert our is not None
            assert abs(our - their) <= amplitude * relative + 2 * math.ulp(our), f"step {step} of {schedule}"


@pytest.mark.parametrize(
    ("arguments", "step", "lr"),
    [
        ({"mode": "triangular2"}, 1025 * 10 + 5, 0.1),
        ({"mode": "exp_range", "gamma": 1.1, "cycle_momentum": False}, 10**4 + 5, None),
    ],
)
def test_where_torch_overflows(arguments: dict[str, Any], step: int, lr: float | None) -> None:
    schedule = CyclicSchedule(0.1, 0.5, step_size_up=5, **arguments)
    if lr is None:
        with pytest.raises(ValueError, match=f"step={step} gives lr="):
            schedule(step)
    else:
        assert schedule(step).lr == lr
    try:
        next(torch_values(schedule, [step]))
    except OverflowError:
        return
    pytest.skip("the installed torch no longer raises OverflowError here")
