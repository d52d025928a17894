"""evaluate: values of G schedules at S steps, and the arrays it fills."""

from __future__ import annotations

import re
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch

from clr_native import CyclicSchedule, _core, evaluate
from references import bits

FIVE = [
    CyclicSchedule(0.001, 0.006, step_size_up=3, step_size_down=7),
    CyclicSchedule(0.1, 0.5, step_size_up=2, window="hann", mode="triangular2", cycle_momentum=False),
    CyclicSchedule(0.0, 1.0, step_size_up=5, window="welch", mode="exp_range", gamma=0.9),
    CyclicSchedule(0.2, 0.3, step_size_up=4, mode="linear_range", decay_steps=30, decay_base=True),
    CyclicSchedule(0.1, 0.9, step_size_up=1, scale_fn=lambda cycle: 1 / cycle),
]


@pytest.mark.parametrize(
    "steps",
    [
        0,
        1,
        41,
        np.int64(41),
        range(0),
        range(5, 5),
        range(-5, -9),
        range(3, 100),
        range(3, 100, 7),
        range(100, 3, -7),
        range(5, -1, -1),
        range(7, 8, 10**40),
        range(0, 2**61 + 1, 2**60),
        range(2**63 - 20, 2**63 - 1),
        range(2**63 - 20, 2**63 + 3, 6),
        range(10**30, 10),
        [],
        [5],
        (9, 0, 9, 2**63 - 2),
        np.array([], dtype=np.int64),
        np.arange(60)[::-3],
        np.arange(60, dtype=">i4"),
        *(np.arange(3, 60, 2, dtype=kind) for kind in "bBhHiIlLqQ"),
    ],
    ids=repr,
)
def test_rows_are_the_schedules_and_columns_the_steps(steps: Any) -> None:
    asked = range(steps) if np.ndim(steps) == 0 and not isinstance(steps, range) else steps
    lr, momentum = evaluate(FIVE, steps)
    assert lr.shape == momentum.shape == (5, len(asked))
    assert lr.dtype == momentum.dtype == np.float64
    for row, schedule in enumerate(FIVE):
        expected = [schedule(int(step)) for step in asked]
        assert lr[row].tolist() == [value.lr for value in expected]
        if schedule.cycle_momentum:
            assert momentum[row].tolist() == [value.momentum for value in expected]
        else:
            assert np.isnan(momentum[row]).all()
        assert bits(*schedule.values(steps)) == bits(lr[row], momentum[row])


def test_no_schedules() -> None:
    lr, momentum = evaluate([], 7)
    assert lr.shape == momentum.shape == (0, 7)


def test_an_iterator_of_schedules() -> None:
    assert bits(*evaluate(iter(FIVE), 9)) == bits(*evaluate(FIVE, 9))  # type: ignore[arg-type]  # more than it promises


def test_many_cycles_of_many_schedules() -> None:
    schedules = [CyclicSchedule(0.1, 0.1 + size, step_size_up=size, step_size_down=3) for size in range(1, 200)]
    lr, momentum = evaluate(schedules, 2000)
    for row, schedule in enumerate(schedules):
        assert bits(lr[row], momentum[row]) == bits(*schedule.values(np.arange(2000)))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("first", [0, 2**40 + 3])
def test_so_many_values_that_threads_share_them(first: int, threads: int) -> None:
    sizes = [(1, 2), (3, 7), (333, 667), (2**40, 50_000)]
    modes: list[dict[str, Any]] = [
        {},
        {"window": "welch", "mode": "triangular2"},
        {"window": "hann", "mode": "exp_range", "gamma": 0.99999},
        {"window": "hann"},
        {"mode": "linear_range", "decay_steps": 2**40 + 20_000},
        {"scale_fn": lambda cycle: 1 / (cycle % 9 + 1), "window": "hann"},
    ]
    schedules = [
        CyclicSchedule(0.1, 0.7, step_size_up=up, step_size_down=down, **mode) for mode in modes for up, down in sizes
    ]
    steps = range(first, first + 20_011)
    few_at_a_time = [evaluate(schedules, list(steps[i : i + 1000])) for i in range(0, len(steps), 1000)]
    expected = [np.concatenate(parts, axis=1) for parts in zip(*few_at_a_time, strict=True)]
    torch.set_num_threads(threads)
    assert bits(*evaluate(schedules, steps)) == bits(*expected)
    assert bits(*evaluate(schedules, np.array(steps))) == bits(*expected)


# --- out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [21, range(4, 25), range(0, 42, 2), list(range(21))])
def test_out_is_filled_in_place_and_returned(steps: Any) -> None:
    out = np.full((5, 21), np.inf), np.full((5, 21), np.inf)
    filled = evaluate(FIVE, steps, out=out)
    assert filled[0] is out[0]
    assert filled[1] is out[1]
    assert bits(*out) == bits(*evaluate(FIVE, steps))


def test_out_may_be_a_part_of_larger_arrays() -> None:
    lr, momentum = np.zeros((9, 21)), np.zeros((9, 21))
    evaluate(FIVE, 21, out=(lr[2:7], momentum[4:9]))
    assert bits(lr[2:7], momentum[4:9]) == bits(*evaluate(FIVE, 21))
    for untouched in (lr[:2], lr[7:], momentum[:4]):
        assert not untouched.any()


def test_out_of_size_zero() -> None:
    out = np.empty((5, 0)), np.empty((5, 0))
    assert evaluate(FIVE, 0, out=out)[1] is out[1]


def _read_only() -> np.ndarray[Any, Any]:
    array = np.empty((5, 21))
    array.flags.writeable = False
    return array


GOOD = np.empty((5, 21))
REFUSED_ARRAYS = [
    (np.empty((5, 21), np.float32), TypeError, "dtype=float32"),
    (np.empty((5, 21), np.int64), TypeError, "dtype=int64"),
    (np.empty((5, 21), ">f8"), TypeError, "dtype=>f8"),
    ([[0.0] * 21] * 5, TypeError, ""),
    (None, TypeError, ""),
    (np.empty((5, 20)), ValueError, "shape=(5, 20)"),
    (np.empty((6, 21)), ValueError, "shape=(6, 21)"),
    (np.empty((21, 5)), ValueError, "shape=(21, 5)"),
    (np.empty(105), ValueError, "shape=(105,)"),
    (np.empty((1, 5, 21)), ValueError, "shape=(1, 5, 21)"),
    (np.empty((21, 5)).T, ValueError, "C-contiguous"),
    (np.empty((5, 42))[:, ::2], ValueError, "C-contiguous"),
    (np.empty((5, 21))[::-1], ValueError, "C-contiguous"),
    (_read_only(), ValueError, "writeable"),
]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(("array", "error", "message"), REFUSED_ARRAYS)
def test_refused_arrays(array: Any, error: type[Exception], message: str, place: int) -> None:
    GOOD.fill(7.0)
    out: Any = (array, GOOD) if place == 0 else (GOOD, array)
    with pytest.raises(error, match=f"out: {('lr', 'momentum')[place]} .*{re.escape(message)}"):
        evaluate(FIVE, 21, out=out)
    assert (GOOD == 7.0).all()


@pytest.mark.parametrize("out", [(), (GOOD,), (GOOD, GOOD, GOOD), GOOD, 5, "ab", {"lr": GOOD, "momentum": GOOD}])
def test_out_must_be_a_pair(out: Any) -> None:
    with pytest.raises(TypeError, match="out must be a pair of arrays"):
        evaluate(FIVE, 21, out=out)


def test_out_arrays_that_share_memory() -> None:
    both = np.empty(250)
    for lr, momentum in [(GOOD, GOOD), (both[:105].reshape(5, 21), both[104:209].reshape(5, 21))]:
        with pytest.raises(ValueError, match="out: lr and momentum must not share memory"):
            evaluate(FIVE, 21, out=(lr, momentum))


@pytest.mark.parametrize("window", ["triangular", "hann"])
@pytest.mark.parametrize("steps", [range(10**6), np.arange(10**6)], ids=["range", "array"])
def test_with_out_nothing_of_the_size_of_the_result_is_allocated(steps: Any, window: str) -> None:
    schedules = [CyclicSchedule(0.1, 0.5, step_size_up=999, window=window)]
    out = np.empty((1, 10**6)), np.empty((1, 10**6))
    evaluate(schedules, steps, out=out)
    tracemalloc.start()
    try:
        evaluate(schedules, steps, out=out)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        fresh = evaluate(schedules, steps)
        _, peak_of_fresh = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000
    assert peak_of_fresh >= fresh[0].nbytes + fresh[1].nbytes  # numpy's allocations are seen


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        (-1, ValueError, "steps=-1"),
        (2**63, ValueError, f"step={2**63 - 1}"),
        (10**40, ValueError, f"step={10**40 - 1}"),
        (range(-1, 5), ValueError, "step=-1"),
        (range(5, -3, -1), ValueError, "step=-2"),
        (range(2**63 - 3, 2**63), ValueError, f"step={2**63 - 1}"),
        ([3, -1, 4], ValueError, "step=-1"),
        ([2**63 - 1], ValueError, f"step={2**63 - 1}"),
        (np.array([2**64 - 1], dtype=np.uint64), ValueError, f"step={2**64 - 1}"),
        ([2**64], TypeError, "dtype=object"),
        (True, TypeError, "dtype=bool"),
        (2.0, TypeError, "dtype=float64"),
        ("20", TypeError, "dtype=<U2"),
        (None, TypeError, "dtype=object"),
        ([1.0, 2.0], TypeError, "dtype=float64"),
        ([True, False], TypeError, "dtype=bool"),
        (["1"], TypeError, "dtype=<U1"),
        ([None], TypeError, "dtype=object"),
        ([[1, 2], [3, 4]], TypeError, "shape=(2, 2)"),
        (np.array(3), TypeError, "shape=()"),
        ({1, 2}, TypeError, "dtype=object"),
        ([[1], [2, 3]], (TypeError, ValueError), "steps"),
    ],
    ids=repr,
)
def test_refused_steps(steps: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"{re.escape(message)}(?!\d)"):
        evaluate(FIVE, steps)
    with pytest.raises(error, match=rf"{re.escape(message)}(?!\d)"):
        FIVE[0].values(steps)


@pytest.mark.parametrize("schedules", [FIVE[0], 5, None, [5], [FIVE[0], None], [FIVE[0].to_dict()], "ab"])
def test_refused_schedules(schedules: Any) -> None:
    with pytest.raises(TypeError, match="schedule"):
        evaluate(schedules, 5)


def test_an_unusable_value_is_named_by_schedule_and_step() -> None:
    bad = CyclicSchedule(0.1, 0.6, step_size_up=5, mode="exp_range", gamma=1.1)
    with pytest.raises(ValueError, match=r"schedule 2 at step=25 gives lr=.* momentum=-"):
        evaluate([FIVE[0], FIVE[1], bad, bad], range(25, 31))


@pytest.mark.parametrize(
    "shapes", [((1, 5), (1, 2)), ((1, 4), (1, 5)), ((5,), (5,)), ((2, 5), (2, 5)), ((0, 5), (0, 5))]
)
def test_the_core_trusts_no_shape(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """Public functions check before; a mistake there must not write past an array."""
    schedules, steps = [CyclicSchedule(0.1, 0.5)._native], np.arange(5)
    lr, momentum = map(np.zeros, shapes)
    with pytest.raises(ValueError, match="shape"):
        _core.fill_steps(schedules, steps, [None], lr, momentum)
    if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][0] != 1:
        with pytest.raises(ValueError, match="shape"):
            _core.fill_range(schedules, 0, [None], lr, momentum)
    assert not lr.any()
    assert not momentum.any()


def test_the_core_trusts_no_scales() -> None:
    schedules = [CyclicSchedule(0.1, 0.5, scale_fn=float)._native]
    wrong: list[list[Any]] = [[], [None], [np.ones(4)]]
    for scales in wrong:
        with pytest.raises(ValueError, match="scales"):
            _core.fill_range(schedules, 0, scales, np.zeros((1, 5)), np.zeros((1, 5)))
