"""A Python scale_fn: how often it is called, with what, and what happens when it misbehaves."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from clr_native import FusedCyclicSGD
from helpers import assert_refused, assert_same_training, every_parameter, go_on, parameters

NAN = float("nan")


def ours(scale_fn: Callable[[int], float], scale_mode: str = "iterations", **settings: Any) -> FusedCyclicSGD:
    return FusedCyclicSGD(
        parameters([20]), 0.25, 0.5, step_size_up=2, scale_fn=scale_fn, scale_mode=scale_mode, **settings
    )


@pytest.mark.parametrize(("mode", "expected"), [("iterations", [1, 2, 3, 4, 5, 6]), ("cycle", [1, 1, 1, 2, 2, 2])])
def test_called_once_a_step_and_group_with_the_right_int(mode: str, expected: list[int]) -> None:
    """With the step from 0 or the cycle from 1, of the update whose values are needed next."""
    calls: tuple[list[Any], list[Any]] = ([], [])

    def recording(to: list[Any]) -> Callable[[int], float]:
        return lambda n: to.append(n) or 1.0  # type: ignore[func-returns-value]  # append gives None

    groups: list[dict[str, Any]] = [
        {"params": parameters([3]), "scale_fn": recording(to), "scale_mode": mode} for to in calls
    ]
    optimizer = FusedCyclicSGD(groups, 0.1, 0.5, step_size_up=2)
    first = 0 if mode == "iterations" else 1
    assert all(set(to) == {first} for to in calls)  # the first update's values stand in the groups
    for to in calls:
        to.clear()
    go_on(optimizer, 6)
    assert calls == (expected, expected)
    assert {type(n) for to in calls for n in to} == {int}


def test_values_are_those_of_the_function() -> None:
    optimizer = ours(lambda cycle: 0.5**cycle, "cycle", cycle_momentum=False)
    found = []
    for _ in range(8):
        found += optimizer.get_last_lr()
        go_on(optimizer)
    assert found == [0.25, 0.3125, 0.375, 0.3125, 0.25, 0.28125, 0.3125, 0.28125]


def test_not_called_for_a_step_by_hand() -> None:
    calls = []
    optimizer = ours(lambda n: calls.append(n) or 1.0)  # type: ignore[func-returns-value]  # append gives None
    calls.clear()
    optimizer.param_groups[0]["lr"] = 0.01
    go_on(optimizer)
    assert calls == []


class LimitError(Exception):
    pass


def raising(n: int) -> float:
    if n == 3:
        raise LimitError("not for 3")
    return 1.0


def assert_step_refused(optimizer: FusedCyclicSGD, error: type[Exception], words: str) -> None:
    every_parameter(optimizer)[0].grad = torch.ones(20)
    assert_refused(optimizer.step, error, words, optimizer)


@pytest.mark.parametrize(
    ("at", "result", "error", "words"),
    [
        (3, LimitError("not for 3"), LimitError, "not for 3"),
        *((3, result, TypeError, "scale_fn") for result in ("1", None, [1.0], 1j)),
        (2, 20.0, ValueError, "momentum=-1"),
    ],
)
def test_what_cannot_be_used_leaves_everything_as_it_was(
    at: int, result: Any, error: type[Exception], words: str
) -> None:
    def scale_fn(n: int) -> Any:
        if n != at:
            return 1.0
        if isinstance(result, Exception):
            raise result
        return result

    optimizer = ours(scale_fn)
    go_on(optimizer, 2)
    assert_step_refused(optimizer, error, words)


@pytest.mark.parametrize(
    ("result", "match"),
    [(NAN, "lr=nan"), (float("inf"), "lr=(inf|nan)"), (-2.0, "lr=-0.25"), (5.0, "momentum=0.4")],
)
def test_a_value_that_cannot_be_used_is_refused_when_it_is_to_be_used(result: float, match: str) -> None:
    """At a peak, where lr = 0.25 + 0.25 * scale and momentum = 0.9 - 0.1 * scale."""
    optimizer = ours(lambda n: result if n == 6 else 1.0)
    go_on(optimizer, 6)
    if result == 5.0:  # beyond the bounds, yet usable
        assert optimizer.get_last_lr() == [1.5]
        go_on(optimizer)
        return
    assert_step_refused(optimizer, ValueError, match)
    optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"] = 0.1, 0.5
    go_on(optimizer)  # by hand it goes
    optimizer.seek(7)
    go_on(optimizer)
    assert optimizer.applied_steps == 8


def test_overflow_of_gamma_is_refused() -> None:
    optimizer = FusedCyclicSGD(parameters([20]), 0.1, 0.5, step_size_up=2, mode="exp_range", gamma=2.0)
    optimizer.seek(5001)
    assert_step_refused(optimizer, ValueError, "applied_steps=5001")


def test_of_many_groups_the_last_is_enough() -> None:
    groups: list[dict[str, Any]] = [{"params": parameters([20])} for _ in range(9)]
    groups.append({"params": parameters([20]), "scale_fn": raising, "scale_mode": "iterations"})
    optimizer = FusedCyclicSGD(groups, 0.1, 0.5, step_size_up=2)
    go_on(optimizer, 2)
    assert_step_refused(optimizer, LimitError, "not for 3")


def test_a_step_within_a_step_is_refused() -> None:
    """From scale_fn, which runs inside; afterwards the optimizer works."""
    optimizer: FusedCyclicSGD
    inner: list[Exception] = []

    def stepping(n: int) -> float:
        if n == 2:
            try:
                optimizer.step()
            except RuntimeError as error:
                inner.append(error)
        return 1.0

    optimizer = ours(stepping)
    plain = ours(lambda n: 1.0)
    go_on(optimizer, 4)
    go_on(plain, 4)
    assert len(inner) == 1
    assert "step" in str(inner[0])
    assert_same_training(optimizer, plain)


def test_a_step_from_another_thread_is_refused_or_waits() -> None:
    optimizer: FusedCyclicSGD
    refused = threading.Event()

    def stepping() -> None:
        try:
            optimizer.step()
        except RuntimeError:
            refused.set()

    def scale_fn(n: int) -> float:
        if n == 2:
            thread = threading.Thread(target=stepping)
            thread.start()
            thread.join()
        return 1.0

    optimizer = ours(scale_fn)
    go_on(optimizer, 3)
    assert refused.is_set()
    assert optimizer.applied_steps == 3


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 3])
def test_a_cycle_through_scale_fn_is_collected(steps: int) -> None:
    def make() -> tuple[weakref.ref[Any], ...]:
        cell: list[FusedCyclicSGD] = []
        optimizer = ours(lambda n: float(len(cell)))
        cell.append(optimizer)
        weight = every_parameter(optimizer)[0]
        weight.optimizer = optimizer  # type: ignore[attr-defined]  # any attribute will do
        go_on(optimizer, steps)
        return weakref.ref(optimizer), weakref.ref(weight)

    references = make()
    gc.collect()
    assert [reference() for reference in references] == [None, None]
