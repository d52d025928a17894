"""ScheduleSequence: values of its segments, bit for bit, at the joins, past its end and nested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr_native import CyclicSchedule, OneCycleSchedule, RampSchedule, ScheduleSequence
from clr_native.schedules import Schedule
from helpers import raised
from references import LARGEST_SIZE, LARGEST_STEP
from references_ramps import telling_steps, worst_errors
from refusals import refusals


def halved(cycle: int) -> float:
    return 0.5 ** (cycle - 1)


def periodic(step: int) -> float:
    return (step % 5) / 4


RAMP = RampSchedule(1e-4, 0.1, 7, ramp="exponential")
HELD = RampSchedule(0.1, 0.05, 3, momentum=0.5)
ONE = OneCycleSchedule(0.7, 23)
CYCLES = CyclicSchedule(0.1, 0.5, step_size_up=3, step_size_down=4)
PARTS: list[Schedule] = [
    RAMP,
    HELD,
    ONE,
    OneCycleSchedule(0.3, 11, convention="fastai", three_phase=True, cycle_momentum=False),
    CYCLES,
    CyclicSchedule(0.0, 1.0, step_size_up=5, window="welch", mode="exp_range", gamma=0.9),
    CyclicSchedule(0.2, 0.3, step_size_up=2, scale_fn=halved),
    CyclicSchedule(0.2, 0.3, step_size_up=2, scale_fn=periodic, scale_mode="iterations", cycle_momentum=False),
]


def same(got: tuple[Any, Any], expected: list[tuple[float, float | None]]) -> bool:
    lr, momentum = zip(*expected, strict=True)
    return bool(np.array_equal(got, np.array([lr, momentum], dtype=float), equal_nan=True))


def by_hand(schedule: Schedule, step: int) -> tuple[float, float | None]:
    """What the documentation says: the segment's own value, asked for by its own step."""
    if not isinstance(schedule, ScheduleSequence):
        return schedule(step)
    for each, n_steps in schedule.segments:
        if n_steps is None or step < n_steps:
            return by_hand(each, step)
        step -= n_steps
    last, n_last = schedule.segments[-1]
    assert n_last is not None
    return by_hand(last, n_last - 1)


def nested() -> st.SearchStrategy[Schedule]:
    def joined(inside: st.SearchStrategy[Schedule]) -> st.SearchStrategy[Schedule]:
        segments = st.lists(st.tuples(inside, st.integers(1, 30)), max_size=3)
        last = st.tuples(inside, st.none() | st.integers(1, 30))
        return st.builds(lambda some, end: ScheduleSequence([*some, end]), segments, last)

    return st.recursive(st.sampled_from(PARTS), joined, max_leaves=8)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(schedule=nested(), first=st.integers(0, 70), order=st.randoms(use_true_random=False))
def test_values_are_those_of_the_segments_however_they_are_asked_for(
    schedule: Schedule, first: int, order: Any
) -> None:
    steps = list(range(first, first + 60))
    assert same(schedule.values(range(first, first + 60)), [by_hand(schedule, step) for step in steps])
    order.shuffle(steps)
    expected = [by_hand(schedule, step) for step in steps]
    assert same(schedule.values(steps), expected)
    assert [schedule(step) for step in steps] == expected


FAR = ScheduleSequence(
    [
        (RampSchedule(0.0, 0.3, LARGEST_SIZE), 2**53 - 5),
        (ScheduleSequence([(OneCycleSchedule(0.3, LARGEST_SIZE, three_phase=True), 2**52), (HELD, 2)]), 2**52 + 3),
        (RampSchedule(1.0, 1e-9, 2**45, ramp="exponential"), 2**40 + 1),
        (OneCycleSchedule(1e-3, 1000, anneal_strategy="linear"), None),
    ]
)


def test_far_joins_are_within_their_bounds_of_the_truth() -> None:
    lr, momentum = worst_errors(FAR, telling_steps(FAR))
    assert lr <= 2
    assert momentum <= 1


@pytest.mark.parametrize("count", [3, 1023, 1024, 1025, 2100])
def test_segments_that_begin_after_the_last_step_there_is(count: int) -> None:
    """Their sum is beyond 2**63, and beyond 2**64."""
    schedule = ScheduleSequence([(ONE, LARGEST_SIZE)] * count + [(CYCLES, None)])
    steps = [0, 22, 23, LARGEST_SIZE - 1, LARGEST_SIZE, LARGEST_SIZE + 7, 2**62, LARGEST_STEP - 1, LARGEST_STEP]
    assert same(schedule.values(steps), [by_hand(schedule, step) for step in steps])
    last = range(LARGEST_STEP - 70, LARGEST_STEP + 1)
    assert same(schedule.values(last), [by_hand(schedule, step) for step in last])
    with_end = ScheduleSequence([(ONE, LARGEST_SIZE)] * count + [(ONE, None)])
    assert with_end(LARGEST_STEP) == by_hand(with_end, LARGEST_STEP)


def test_after_its_end_the_last_value_is_held() -> None:
    schedule = ScheduleSequence([(RAMP, 7), (CYCLES, 3)])
    assert {schedule(step) for step in (9, 10, 11, 1000, 2**62, LARGEST_STEP)} == {CYCLES(2)}
    assert len(set(schedule.values(range(9, 5000))[0])) == 1
    inner = ScheduleSequence([(schedule, 1000), (RAMP, None)])
    assert inner(999) == CYCLES(2)
    assert inner(1000) == RAMP(0)


def test_a_scale_fn_is_asked_for_the_segments_own_steps_and_cycles() -> None:
    asked: list[tuple[str, int]] = []

    def recorded(name: str) -> Callable[[int], float]:
        def scale_fn(argument: int) -> float:
            asked.append((name, argument))
            return 1.0

        return scale_fn

    by_cycle = CyclicSchedule(0.1, 0.5, step_size_up=2, scale_fn=recorded("cycle"))
    by_step = CyclicSchedule(0.1, 0.5, step_size_up=2, scale_fn=recorded("step"), scale_mode="iterations")
    schedule = ScheduleSequence([(by_cycle, 9), (RAMP, 5), (by_step, 3)])
    schedule.values(range(100))
    assert sorted(asked) == [("cycle", 1), ("cycle", 2), ("cycle", 3), ("step", 0), ("step", 1), ("step", 2)]
    asked.clear()
    schedule(12)
    assert asked == []
    assert schedule(10**6) == by_step(2)
    assert asked == [("step", 2), ("step", 2)]


def test_where_cycles_begin_and_how_many_are_complete() -> None:
    schedule = ScheduleSequence(
        [(RAMP, 4), (CYCLES, 16), (ScheduleSequence([(ONE, 30), (CYCLES, 8)]), 40), (CYCLES, None)]
    )
    starts = [4, 11, 18, 20, 50, 57, 60, 67, 74]
    assert schedule.cycle_starts(80) == starts
    for steps in (0, 1, 4, 5, 19, 20, 21, 60, 61):
        assert schedule.cycle_starts(steps) == [start for start in starts if start < steps]
    ends = [step for step in range(80) if schedule._cycle_position(step).at_end]
    # Complete cycles: two of the first segment's two and a bit, the one cycle, one of the next, two after that.
    assert ends == [11, 18, 43, 57, 67, 74]
    counts = [schedule._cycle_position(step).complete for step in range(80)]
    assert [step for step in range(1, 80) if counts[step] > counts[step - 1]] == ends
    assert counts[-1] == len(ends)


def drawn(draw: Callable[[int], int], depth: int) -> Schedule:
    if depth == 0:
        return (RAMP, CYCLES, ONE)[draw(3)]
    segments: list[Any] = [(drawn(draw, draw(depth)), 1 + draw(40)) for _ in range(1 + draw(3))]
    if draw(2):
        segments[-1] = (segments[-1][0], None)
    return ScheduleSequence(segments)


def cycles_before(schedule: Schedule, step: int) -> int:
    """The cycles that end at or before a step, segment by segment."""
    if isinstance(schedule, CyclicSchedule):
        return step // schedule.cycle_length
    if isinstance(schedule, OneCycleSchedule):
        return int(step >= schedule.total_steps)
    complete = 0
    for segment, n_steps in getattr(schedule, "segments", ()):
        inside = step if n_steps is None else min(step, n_steps)
        complete += cycles_before(segment, inside)
        step -= inside
    return complete


@pytest.mark.parametrize("seed", range(20))
def test_cycles_of_nested_sequences_are_those_of_their_segments(seed: int) -> None:
    numbers = np.random.default_rng(seed)
    schedule = drawn(lambda most: int(numbers.integers(most)), 3)
    counts = [cycles_before(schedule, step) for step in range(300)]
    positions = [schedule._cycle_position(step) for step in range(300)]
    assert [position.complete for position in positions] == counts
    at_ends = [position.at_end for position in positions]
    assert at_ends == [step > 0 and counts[step] > counts[step - 1] for step in range(300)]


SEGMENT = (RAMP, 5)
REFUSED: list[tuple[Any, type[Exception], str]] = [
    ([], ValueError, "segments=[] must hold at least one pair"),
    ((), ValueError, "segments=[] must hold at least one pair"),
    (None, TypeError, "segments=None must be a list of pairs"),
    (5, TypeError, "segments=5 must be a list of pairs"),
    ("ab", TypeError, "segments='ab' must be a list of pairs"),
    (RAMP, TypeError, f"segments={RAMP!r} must be a list of pairs"),
    ({RAMP: 5}, TypeError, "must be a list of pairs"),
    ([RAMP], TypeError, f"segment 0: {RAMP!r} must be a pair"),
    ([SEGMENT, 5], TypeError, "segment 1: 5 must be a pair"),
    ([SEGMENT, (RAMP,)], TypeError, "segment 1: "),
    ([(RAMP, 5, 6)], TypeError, "segment 0: "),
    (np.zeros(3), TypeError, "segment 0: "),
    ([SEGMENT, ("ramp", 5)], TypeError, "segment 1: 'ramp' must be a schedule"),
    ([(None, 5)], TypeError, "segment 0: None must be a schedule"),
    ([(RAMP.to_dict(), 5)], TypeError, "must be a schedule"),
    ([(5, RAMP)], TypeError, "segment 0: 5 must be a schedule"),
    ([(RAMP, None), SEGMENT], ValueError, "segment 0: n_steps=None must be a number of steps"),
    ([SEGMENT, (RAMP, None), (RAMP, None)], ValueError, "segment 1: n_steps=None must be a number of steps"),
    *(
        ([SEGMENT, (RAMP, arguments["n_steps"])], error, f"segment 1: {words}")
        for arguments, error, words in refusals(
            "n_steps",
            [0, -1, 2.5, float("nan"), float("inf"), 2**53, 10**400],
            [True, "5", np.array(5), np.array([5, 6])],
        )
    ),
]


@pytest.mark.parametrize(("segments", "error", "message"), REFUSED, ids=lambda value: None)
def test_refused_segments(segments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        ScheduleSequence(segments)
    assert message in str(caught.value)


@pytest.mark.parametrize("segments", [iter([SEGMENT]), ([RAMP, 5],), [(RAMP, 5.0)], [(RAMP, np.int16(5))]])
def test_pairs_of_any_kind_are_kept_as_tuples(segments: Any) -> None:
    schedule = ScheduleSequence(segments)
    assert schedule.segments == ((RAMP, 5),)
    assert type(schedule.segments[0][1]) is int


def test_a_segments_invalid_value_is_named_by_the_sequences_step() -> None:
    growing = CyclicSchedule(0.1, 0.6, step_size_up=5, mode="exp_range", gamma=1.1)
    schedule = ScheduleSequence([(RAMP, 100), (growing, None)])
    first = next(step for step in range(60) if raised(lambda step=step: growing(step)))  # type: ignore[misc]  # a lambda with a default
    for steps in (range(90, 200), list(range(90, 200))):
        with pytest.raises(ValueError, match=f"the schedule at step={100 + first} gives lr=.* momentum=-"):
            schedule.values(steps)
    assert schedule.values(100 + first)[0].shape == (100 + first,)
