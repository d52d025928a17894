"""plot_schedule: what is drawn, that no peak is lost, and what it refuses."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from clr_native import CyclicSchedule, OneCycleSchedule, RampSchedule, ScheduleSequence, plot_schedule
from clr_native.schedules import Schedule
from clr_native.schedules.plot import curves
from helpers import output_of, python_process

CYCLIC = CyclicSchedule(0.1, 0.5, step_size_up=3, step_size_down=2)
RAMP = RampSchedule(0.0, 1.0, 4)
SEQUENCE = ScheduleSequence([(RAMP, 4), (CYCLIC, None)])


def twin_of(axes: Axes) -> Axes | None:
    assert isinstance(axes.figure, Figure)
    others = [each for each in axes.figure.axes if each is not axes]
    return others[0] if others else None


def marks_of(axes: Axes) -> list[float]:
    """Where the lines stand that mark cycles, over the whole height."""
    collections = [each for each in axes.collections if isinstance(each, LineCollection)]
    segments = [segment for collection in collections for segment in collection.get_segments()]
    assert all(segment[:, 1].tolist() == [0, 1] for segment in segments)
    return [float(segment[0, 0]) for segment in segments]


@pytest.mark.parametrize("steps", [12, range(3, 20), range(0, 40, 3), range(19, 2, -1), np.int64(7)], ids=repr)
@pytest.mark.parametrize(
    "schedule", [CYCLIC, OneCycleSchedule(0.1, 10), RAMP, SEQUENCE], ids=lambda schedule: type(schedule).__name__
)
def test_what_is_drawn_are_the_values(schedule: Schedule, steps: Any) -> None:
    axes = plot_schedule(schedule, steps=steps)
    expected = sorted(steps if isinstance(steps, range) else range(steps))
    lr, momentum = schedule.values(np.array(expected))
    (line,) = axes.lines
    assert np.array_equal(np.asarray(line.get_xdata()), expected)
    assert np.array_equal(np.asarray(line.get_ydata()), lr)
    twin = twin_of(axes)
    assert (twin is None) == bool(np.isnan(momentum).all())
    if twin is not None:
        (dashed,) = twin.lines
        assert np.array_equal(np.asarray(dashed.get_ydata()), momentum, equal_nan=True)
        assert dashed.is_dashed()
        assert dashed.get_color() == line.get_color()
        assert not line.is_dashed()
        assert str(twin.yaxis.get_label_position()) == "right"


@pytest.mark.parametrize(
    ("schedule", "steps", "marks"),
    [
        (CYCLIC, 11, [0, 5, 10]),
        (CYCLIC, 10, [0, 5]),
        (CYCLIC, range(6, 21), [10, 15, 20]),
        (OneCycleSchedule(0.1, 10), 20, [0]),
        (RAMP, 10, []),
        (SEQUENCE, 12, [4, 9]),
        (CYCLIC, 500, list(range(0, 500, 5))),
        (CYCLIC, 501, []),  # more than 100 marks say nothing
        (CYCLIC, range(10**15, 10**15 + 10), []),  # and so many cycles before are not looked through
    ],
)
def test_cycles_are_marked(schedule: Schedule, steps: int | range, marks: list[int]) -> None:
    assert marks_of(plot_schedule(schedule, steps=steps)) == marks


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    up=st.integers(1, 300),
    down=st.integers(1, 300),
    count=st.integers(1, 6000),
    start=st.integers(0, 2**40),
    stride=st.integers(1, 7),
    parts=st.integers(1, 200),
    window=st.sampled_from(["triangular", "welch", "hann"]),
    at_a_time=st.sampled_from([64, 1000, 2**20]),
)
def test_thinning_keeps_the_extremes_of_every_stretch(
    up: int, down: int, count: int, start: int, stride: int, parts: int, window: str, at_a_time: int
) -> None:
    schedule = CyclicSchedule(0.1, 0.5, step_size_up=up, step_size_down=down, window=window, mode="triangular2")
    steps = range(start, start + count * stride, stride)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clr_native.schedules.plot._AT_A_TIME", at_a_time)
        (curve,) = curves([schedule], steps, parts=parts)
    length = -(-count // parts)
    assert len(curve.steps) <= 8 * parts
    assert np.all(np.diff(curve.steps) > 0)
    assert curve.steps[0] == steps[0]
    assert curve.steps[-1] == steps[-1]
    for values, drawn in zip(schedule.values(curve.steps), (curve.lr, curve.momentum), strict=True):
        assert np.array_equal(values, drawn)
    every = schedule.values(np.array(steps))
    for first in range(0, count, length):
        own = (curve.steps >= steps[first]) & (curve.steps <= steps[min(first + length, count) - 1])
        for values, drawn in zip(every, (curve.lr, curve.momentum), strict=True):
            stretch = values[first : first + length]
            assert (drawn[own].min(), drawn[own].max()) == (stretch.min(), stretch.max())


def test_the_only_peak_among_millions_of_steps_is_drawn() -> None:
    peak = ScheduleSequence([(CyclicSchedule(0.1, 0.1), 1_234_567), (CyclicSchedule(0.1, 9.0, step_size_up=1), 2)])
    axes = plot_schedule(peak, steps=3_000_000)
    assert len(np.asarray(axes.lines[0].get_ydata())) < 10_000
    assert float(np.max(np.asarray(axes.lines[0].get_ydata()))) == 9.0


def legend_of(axes: Axes) -> list[str] | None:
    legend = axes.get_legend()
    return None if legend is None else [text.get_text() for text in legend.get_texts()]


def test_legend() -> None:
    assert legend_of(plot_schedule(CYCLIC, steps=5)) is None
    assert legend_of(plot_schedule(CYCLIC, steps=5, labels=["mine"])) == ["mine"]
    assert legend_of(plot_schedule(CYCLIC, RAMP, steps=5, labels=("a", "b"))) == ["a", "b"]
    shown = legend_of(plot_schedule(RAMP, SEQUENCE, steps=5))
    assert shown == [repr(RAMP), repr(SEQUENCE)[:77] + "..."]


def test_several_schedules_have_colours_of_their_own() -> None:
    axes = plot_schedule(CYCLIC, RAMP, SEQUENCE, steps=20)
    assert len({line.get_color() for line in axes.lines}) == 3
    twin = twin_of(axes)
    assert twin is not None
    assert [line.get_color() for line in twin.lines] == [axes.lines[0].get_color(), axes.lines[2].get_color()]


def test_given_axes_are_drawn_on() -> None:
    given_axes = Figure().add_subplot()
    assert plot_schedule(CYCLIC, steps=5, ax=given_axes) is given_axes
    assert len(given_axes.lines) == 1


def test_the_learning_rate_is_drawn_above_the_momentum_on_the_same_ground() -> None:
    axes = Figure().add_subplot()
    axes.set_facecolor("0.9")
    twin = twin_of(plot_schedule(CYCLIC, steps=5, ax=axes))
    assert twin is not None
    assert twin.get_zorder() < axes.get_zorder()
    assert twin.get_facecolor() == axes.get_facecolor()
    assert twin.patch.get_visible()
    assert not axes.patch.get_visible()


@pytest.mark.parametrize(
    ("schedules", "arguments", "error", "words"),
    [
        ([], {"steps": 5}, TypeError, "schedules=() must be at least one schedule"),
        ([3], {"steps": 5}, TypeError, "schedules: 3 must be a schedule such as CyclicSchedule(...)"),
        ([CYCLIC], {"steps": 0}, ValueError, "steps=0 must be at least one step"),
        ([CYCLIC], {"steps": -3}, ValueError, "steps=-3 must be at least one step"),
        ([CYCLIC], {"steps": range(4, 4)}, ValueError, "steps=range(4, 4) must be at least one step"),
        ([CYCLIC], {"steps": range(-1, 4)}, ValueError, "steps=range(-1, 4) must be from 0 to 2**63 - 2"),
        ([CYCLIC], {"steps": 2**63}, ValueError, f"steps={2**63} must be from 0 to 2**63 - 2"),
        ([CYCLIC], {"steps": 2**32 + 1}, ValueError, f"steps={2**32 + 1} must be at most 2**32 steps: every n-th"),
        ([CYCLIC], {"steps": range(2**63 - 1)}, ValueError, f"steps=range(0, {2**63 - 1}) must be at most 2**32 steps"),
        ([CYCLIC], {"steps": 1.5}, TypeError, "steps=1.5 must be a count or a range"),
        ([CYCLIC], {"steps": True}, TypeError, "steps=True must be a count or a range"),
        ([CYCLIC], {"steps": [1, 2]}, TypeError, "steps=[1, 2] must be a count or a range"),
        ([CYCLIC], {"steps": 5, "labels": "a"}, TypeError, "labels='a' must be a list of texts"),
        ([CYCLIC], {"steps": 5, "labels": [1]}, TypeError, "labels=[1] must be a list of texts"),
        ([CYCLIC], {"steps": 5, "labels": []}, ValueError, "labels=[] must be a label for each of 1 schedules"),
        ([CYCLIC], {"steps": 5, "ax": "a"}, TypeError, "ax='a' must be matplotlib Axes or None"),
        (
            [CYCLIC, CyclicSchedule(0.1, 1.0, step_size_up=2, scale_fn=lambda cycle: -1.0)],
            {"steps": 3000},
            ValueError,
            "scale_fn=<function <lambda>",
        ),
        (
            [CYCLIC, CyclicSchedule(0.1, 1.0, step_size_up=2, scale_fn=lambda cycle: -1.0)],
            {"steps": 3000, "labels": ["good", "bad"]},
            ValueError,
            "bad: the schedule at step=1 gives lr=-0.35",
        ),
    ],
)
def test_bad_arguments_name_themselves(
    schedules: list[Any], arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=re.escape(words)):
        plot_schedule(*schedules, **arguments)


def test_a_rejected_picture_leaves_the_axes_as_they_were() -> None:
    axes = Figure().add_subplot()
    with pytest.raises(ValueError, match="gives lr"):
        plot_schedule(CYCLIC, CyclicSchedule(0.1, 1.0, scale_fn=lambda cycle: -9.0), steps=3000, ax=axes)
    assert not axes.lines
    assert twin_of(axes) is None
    assert axes.get_xlabel() == ""


def test_a_missing_matplotlib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "clr-native\[plot\]"'):
        plot_schedule(CYCLIC, steps=5)


@pytest.mark.slow
def test_import_is_light_and_no_window_is_opened() -> None:
    heavy = "('matplotlib', 'rich', 'plotext', 'tomllib', 'tomli', 'matplotlib.pyplot')"
    code = (
        f"import sys, clr_native; print([m for m in {heavy} if m in sys.modules]); "
        "clr_native.plot_schedule(clr_native.CyclicSchedule(0.1, 1.0), steps=9); "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    assert output_of(python_process(code)).splitlines() == ["[]", "['matplotlib']"]
